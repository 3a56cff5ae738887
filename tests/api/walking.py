"""Walking a list page by page, as a client does."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import httpx

Page = dict[str, Any]


def page(client: httpx.Client, path: str = "/consumers", **parameters: Any) -> Page:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    content: Page = answer.json()
    return content


def ids(content: Page) -> list[str]:
    return [row["id"] for row in content["data"]]


def forward(client: httpx.Client, path: str = "/consumers", **parameters: Any) -> Iterator[Page]:
    """The pages until there is no end cursor, which is how the documentation has it."""
    cursor: dict[str, Any] = {}
    while (content := page(client, path, **parameters, **cursor))["pageInfo"]["endCursor"]:
        yield content
        cursor = {"after": content["pageInfo"]["endCursor"]}


def backward(client: httpx.Client, last: int, path: str = "/consumers", **parameters: Any) -> Iterator[Page]:
    """The pages from the end to the beginning."""
    cursor: dict[str, Any] = {}
    while (content := page(client, path, last=last, **parameters, **cursor))["pageInfo"]["startCursor"]:
        yield content
        cursor = {"before": content["pageInfo"]["startCursor"]}


def walk(client: httpx.Client, path: str = "/consumers", **parameters: Any) -> list[str]:
    return [row for content in forward(client, path, **{"first": 100, **parameters}) for row in ids(content)]


def walk_back(client: httpx.Client, path: str = "/consumers", **parameters: Any) -> list[str]:
    """The whole list again, put together from its end."""
    pages = list(backward(client, **{"last": 100, "path": path, **parameters}))
    return [row for content in reversed(pages) for row in ids(content)]


def wander(
    client: httpx.Client,
    expected: Sequence[str],
    steps: Iterable[tuple[bool, int]],
    path: str = "/consumers",
    **parameters: Any,
) -> None:
    """Go through a list, ahead or back by so many rows at each step, and assert that each page is as it should be.

    Beyond either end the walk begins anew.
    """
    begin = end = 0
    start = stop = None
    for ahead, size in steps:
        if ahead or begin == 0 or start is None:
            asked = {"first": size} | ({"after": stop} if stop else {})
            begin, end = (end if stop else 0), min((end if stop else 0) + size, len(expected))
            flags = (end < len(expected), stop is not None)
        else:
            asked = {"last": size, "before": start}
            begin, end = max(begin - size, 0), begin
            flags = (True, begin > 0)
        content = page(client, path, **parameters, **asked)
        info = content["pageInfo"]
        assert ids(content) == list(expected[begin:end])
        assert (info["hasNextPage"], info["hasPreviousPage"]) == flags
        if "count" in parameters:
            assert content["totalCount"] == len(expected)
        start, stop = info["startCursor"], info["endCursor"]
