"""Walking a list page by page, as a client does."""

from collections.abc import Iterator
from typing import Any

import httpx

Page = dict[str, Any]


def page(client: httpx.Client, **parameters: Any) -> Page:
    answer = client.get("/consumers", params=parameters)
    assert answer.status_code == 200, answer.text
    content: Page = answer.json()
    return content


def ids(content: Page) -> list[str]:
    return [row["id"] for row in content["data"]]


def forward(client: httpx.Client, **parameters: Any) -> Iterator[Page]:
    """The pages until there is no end cursor, which is how the documentation has it."""
    cursor: dict[str, Any] = {}
    while (content := page(client, **parameters, **cursor))["pageInfo"]["endCursor"]:
        yield content
        cursor = {"after": content["pageInfo"]["endCursor"]}


def backward(client: httpx.Client, last: int, **parameters: Any) -> Iterator[Page]:
    """The pages from the end to the beginning."""
    cursor: dict[str, Any] = {}
    while (content := page(client, last=last, **parameters, **cursor))["pageInfo"]["startCursor"]:
        yield content
        cursor = {"before": content["pageInfo"]["startCursor"]}


def walk(client: httpx.Client, **parameters: Any) -> list[str]:
    return [row for content in forward(client, **{"first": 100, **parameters}) for row in ids(content)]


def walk_back(client: httpx.Client, **parameters: Any) -> list[str]:
    """The whole list again, put together from its end."""
    pages = list(backward(client, **{"last": 100, **parameters}))
    return [row for content in reversed(pages) for row in ids(content)]
