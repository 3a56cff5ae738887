"""Asking the API, many questions at a time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

CLIENTS = 4
PATHS = {"q": "/consumers/search", "search": "/consumers"}


def hits(client: httpx.Client, parameter: str, text: str, first: int) -> list[str]:
    """Ids of the first consumers found by a text, in order."""
    return [row["id"] for row in _page(client, {parameter: text, "first": first}, PATHS[parameter])["data"]]


def every_hit(client: httpx.Client, parameter: str, text: str) -> list[str]:
    """Ids of all consumers found by a text."""
    found: list[str] = []
    question: dict[str, Any] = {parameter: text, "first": 100}
    while True:
        page = _page(client, question, PATHS[parameter])
        found += [row["id"] for row in page["data"]]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        question["after"] = page["pageInfo"]["endCursor"]


def ask(questions: Iterable[Asked], answer: Callable[[Asked], Answer]) -> list[tuple[Asked, Answer]]:
    """All questions, each with its answer."""
    asked = list(questions)
    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(zip(asked, pool.map(answer, asked), strict=True))


def _page(client: httpx.Client, question: dict[str, Any], path: str) -> dict[str, Any]:
    answer = client.get(path, params=question)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content
