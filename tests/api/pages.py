"""Read a list page by page, as a client does."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import httpx

Page = dict[str, Any]


def get_page(client: httpx.Client, path: str = "/consumers", **parameters: Any) -> Page:
    response = client.get(path, params=parameters)
    assert response.status_code == 200, response.text
    content: Page = response.json()
    return content


def page_ids(content: Page) -> list[str]:
    return [row["id"] for row in content["data"]]


def pages_forward(client: httpx.Client, path: str = "/consumers", **parameters: Any) -> Iterator[Page]:
    """Read pages until a page has no end cursor, as the documentation describes."""
    cursor: dict[str, Any] = {}
    while (content := get_page(client, path, **parameters, **cursor))["pageInfo"]["endCursor"]:
        yield content
        cursor = {"after": content["pageInfo"]["endCursor"]}


def pages_backward(client: httpx.Client, last: int, path: str = "/consumers", **parameters: Any) -> Iterator[Page]:
    """Read pages from the end of a list to its beginning."""
    cursor: dict[str, Any] = {}
    while (content := get_page(client, path, last=last, **parameters, **cursor))["pageInfo"]["startCursor"]:
        yield content
        cursor = {"before": content["pageInfo"]["startCursor"]}


def walk(client: httpx.Client, path: str = "/consumers", **parameters: Any) -> list[str]:
    """Read a whole list from its beginning, and return the ids in order."""
    return [row for content in pages_forward(client, path, **{"first": 100, **parameters}) for row in page_ids(content)]


def walk_backward(client: httpx.Client, path: str = "/consumers", **parameters: Any) -> list[str]:
    """Read a whole list from its end, and return the ids in the order of the list."""
    pages = list(pages_backward(client, **{"last": 100, "path": path, **parameters}))
    return [row for content in reversed(pages) for row in page_ids(content)]


def assert_pages_along(
    client: httpx.Client,
    expected: Sequence[str],
    steps: Iterable[tuple[bool, int]],
    path: str = "/consumers",
    **parameters: Any,
) -> None:
    """Move through a list and assert that each page has the expected rows and flags.

    Each step is a direction (true: forward) and a page size. A step past either end restarts at the beginning.
    """
    begin = end = 0
    start = stop = None
    for forward, size in steps:
        if forward or begin == 0 or start is None:
            position = {"first": size} | ({"after": stop} if stop else {})
            begin, end = (end if stop else 0), min((end if stop else 0) + size, len(expected))
            flags = (end < len(expected), stop is not None)
        else:
            position = {"last": size, "before": start}
            begin, end = max(begin - size, 0), begin
            flags = (True, begin > 0)
        content = get_page(client, path, **parameters, **position)
        info = content["pageInfo"]
        assert page_ids(content) == list(expected[begin:end])
        assert (info["hasNextPage"], info["hasPreviousPage"]) == flags
        if "count" in parameters:
            assert content["totalCount"] == len(expected)
        start, stop = info["startCursor"], info["endCursor"]
