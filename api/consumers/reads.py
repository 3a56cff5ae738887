"""The read path: pages of consumers from the index. Rows pass through as the bytes they were indexed with."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from opensearchpy import AsyncOpenSearch
from opensearchpy.exceptions import RequestError

from api.consumers import cursors, query
from api.errors import Fault, Problem, invalid
from infra.documents import Consumer


class PageInfo(msgspec.Struct, rename="camel"):
    """Cursors are those of the first and the last row; null on an empty page."""

    start_cursor: str | None
    end_cursor: str | None
    has_next_page: bool
    has_previous_page: bool


class ConsumerPage(msgspec.Struct, rename="camel"):
    data: list[Consumer]
    page_info: PageInfo


class Source(msgspec.Struct):
    row: msgspec.Raw


class Hit(msgspec.Struct):
    sort: list[Any]
    source: Source = msgspec.field(name="_source")


class Hits(msgspec.Struct):
    hits: list[Hit]
    total: dict[str, Any] = {}


class Found(msgspec.Struct):
    hits: Hits


class Window(msgspec.Struct):
    """Which page of a list: so many rows after a cursor, or before one."""

    size: int
    after: str | None = None
    before: str | None = None
    backward: bool = False


async def page(
    client: AsyncOpenSearch, alias: str, rows: query.Clause, order: query.Order, window: Window, question: bytes
) -> bytes:
    """One page as the response's JSON.

    Args:
        client: the search engine.
        alias: what to search.
        rows: which rows, from `query`.
        order: their order, from `query`.
        window: which page.
        question: identifies list and order; cursors of another question are refused.

    Raises:
        Problem: 400 for a cursor that is damaged, expired or of another list.
        OpenSearchException: the index cannot answer.
    """
    place = _place(window, question, order)
    body = query.page(rows, order, window.size, place, backward=window.backward)
    hits = (await _search(client, alias, body)).hits.hits
    more = len(hits) > window.size
    hits = hits[: window.size]
    if window.backward:
        hits.reverse()
    return _render(hits, _page_info(hits, order, window, question, more=more))


def _place(window: Window, question: bytes, order: query.Order) -> list[Any] | None:
    name, cursor = ("before", window.before) if window.before is not None else ("after", window.after)
    if cursor is None:
        return None
    try:
        values = cursors.decode(question, cursor)
    except cursors.CursorError as error:
        raise invalid(Fault(name, str(error))) from None
    if len(values) != len(order.clauses) - len(order.prefix):
        raise invalid(Fault(name, "Invalid cursor"))
    return values


async def _search(client: AsyncOpenSearch, alias: str, body: query.Clause) -> Found:
    try:
        answer = await client.search(index=alias, body=body, params={"allow_partial_search_results": "false"})
    except RequestError as error:
        if "too_many" in str(error):
            raise Problem(HTTPStatus.BAD_REQUEST, "Validation failed", message="The search text is too long") from None
        raise
    return msgspec.json.decode(answer, type=Found)


def _page_info(hits: Sequence[Hit], order: query.Order, window: Window, question: bytes, *, more: bool) -> PageInfo:
    ends = [cursors.encode(question, hit.sort[len(order.prefix) :]) for hit in (hits[0], hits[-1])] if hits else []
    return PageInfo(
        start_cursor=ends[0] if ends else None,
        end_cursor=ends[1] if ends else None,
        has_next_page=window.before is not None if window.backward else more,
        has_previous_page=more if window.backward else window.after is not None,
    )


def _render(hits: Sequence[Hit], info: PageInfo) -> bytes:
    rows = b",".join(bytes(hit.source.row) for hit in hits)
    return b'{"data":[%b],"pageInfo":%b}' % (rows, msgspec.json.encode(info))
