"""Run many searches at a time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx

Query = TypeVar("Query")
Result = TypeVar("Result")

CLIENTS = 4
PATHS = {"q": "/consumers/search", "search": "/consumers"}


def first_ids(client: httpx.Client, parameter: str, text: str, first: int) -> list[str]:
    """Return the ids of the first hits of a text, in order."""
    return [row["id"] for row in _page(client, {parameter: text, "first": first}, PATHS[parameter])["data"]]


def all_ids(client: httpx.Client, parameter: str, text: str) -> list[str]:
    """Return the ids of all hits of a text."""
    ids: list[str] = []
    parameters: dict[str, Any] = {parameter: text, "first": 100}
    while True:
        page = _page(client, parameters, PATHS[parameter])
        ids += [row["id"] for row in page["data"]]
        if not page["pageInfo"]["hasNextPage"]:
            return ids
        parameters["after"] = page["pageInfo"]["endCursor"]


def run_queries(queries: Iterable[Query], run: Callable[[Query], Result]) -> list[tuple[Query, Result]]:
    """Run all queries in threads, and return each query with its result."""
    query_list = list(queries)
    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(zip(query_list, pool.map(run, query_list), strict=True))


def _page(client: httpx.Client, parameters: dict[str, Any], path: str) -> dict[str, Any]:
    response = client.get(path, params=parameters)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content
