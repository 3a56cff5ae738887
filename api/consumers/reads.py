"""The read path: pages of consumers from the index. Rows pass through as the bytes they were indexed with."""

from http import HTTPStatus
from typing import Any

import msgspec
from opensearchpy import AsyncOpenSearch
from opensearchpy.exceptions import RequestError

from api.consumers import query
from api.errors import Problem
from api.pages import PageInfo, Window, render
from infra.documents import Consumer


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
    place = window.place(question, len(order.clauses) - len(order.prefix))
    body = query.page(rows, order, window.size, place, backward=window.backward)
    hits = (await _search(client, alias, body)).hits.hits
    more = len(hits) > window.size
    hits = hits[: window.size]
    if window.backward:
        hits.reverse()
    info = window.info(question, [hit.sort[len(order.prefix) :] for hit in hits], more=more)
    return render([bytes(hit.source.row) for hit in hits], info)


async def _search(client: AsyncOpenSearch, alias: str, body: query.Clause) -> Found:
    try:
        answer = await client.search(index=alias, body=body, params={"allow_partial_search_results": "false"})
    except RequestError as error:
        if "index_closed" in str(error):
            raise
        # Of what a request can bring here, only these may be more, or other, than OpenSearch takes.
        if "too_many" in str(error):
            raise Problem(HTTPStatus.BAD_REQUEST, "Validation failed", message="The search text is too long") from None
        if "search_after" in body:
            raise Problem(HTTPStatus.BAD_REQUEST, "Validation failed", message="Invalid cursor") from None
        raise
    return msgspec.json.decode(answer, type=Found)
