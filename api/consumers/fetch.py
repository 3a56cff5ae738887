"""The read path: pages of consumers from OpenSearch. A row is sent as the indexed bytes."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from api.consumers import query, windows
from api.consumers.windows import FirstPages
from api.cursors import Cursors
from api.errors import invalid_cursor
from api.pages import Paging, render
from api.search import Index, search
from infra.filters.clauses import Clause
from infra.index.hits import Hits, SearchResponse, SourceHit


class Source(msgspec.Struct, rename="camel"):
    row: msgspec.Raw
    audience_ids: list[str]


Hit = SourceHit[Source]

_decode = msgspec.json.Decoder(SearchResponse[Hit]).decode


class PageRequest(NamedTuple):
    """A page to read: the rows of the list, their order, and the requested page."""

    rows: Clause
    order: query.Order
    paging: Paging
    cursors: Cursors
    with_total: bool = False


ExtraMembers = Callable[[Index, Sequence[Hit]], Awaitable[Iterable[bytes]]]
"""Returns for each hit the members to append to the row's JSON object, with their leading comma."""
MAX_PAGE_BYTES = 4 * 1024 * 1024
"""A page with longer rows ends early. Only rows with thousands of audiences are that long."""


async def page(
    index: Index, first_pages: FirstPages, request: PageRequest, extra_members: ExtraMembers | None = None
) -> bytes:
    """Return a page as the JSON of the response.

    Raises:
        Problem: 400 for a damaged or expired cursor, or a cursor of another list.
        OpenSearchException: the index cannot answer.
    """
    order, paging, cursors = request.order, request.paging, request.cursors
    # Ordered by creation, a cursor also carries the width of its window, as the last value.
    position = paging.position(cursors, order.position_length + bool(order.creation_direction))
    width = _pop_width(position) if position and order.creation_direction else 0
    body = query.page(
        request.rows, order, paging.size, position, backward=paging.backward, with_total=request.with_total
    )
    found = await _search(index, body, _window(first_pages, request, position, width), paging.size)
    has_more = len(found.hits) > paging.size
    positions = [hit.sort[len(order.prefix) :] for hit in found.hits]
    if positions and order.creation_direction:
        times = [values[0] for values in positions]
        if has_more and not position and windows.is_ascending(order, backward=paging.backward):
            first_pages.learn(cursors.list_id, times)
        width = windows.next_width(times, width)
        positions = [[*values, width] for values in positions]
    hits = found.hits[: paging.size]
    rows = [bytes(hit.source.row) for hit in hits]
    if extra_members and hits:
        rows = _extended(rows, await extra_members(index, hits))
        has_more = has_more or len(rows) < len(hits)
    positions = positions[: len(rows)]
    if paging.backward:
        rows.reverse()
        positions.reverse()
    info = paging.page_info(cursors, positions, has_more=has_more)
    return render(rows, info, found.total.value if found.total else None)


def _extended(rows: list[bytes], extra: Iterable[bytes]) -> list[bytes]:
    """Return the rows with their extra members, as many as fit into a page, and at least one."""
    extended: list[bytes] = []
    room = MAX_PAGE_BYTES
    for row, members in zip(rows, extra, strict=True):
        room -= len(row) + len(members)
        if extended and room < 0:
            break
        extended.append(row[:-1] + members + b"}")
    return extended


async def count(index: Index, rows: Clause) -> int:
    """Count rows exactly.

    Raises:
        OpenSearchException: the index cannot answer.
    """
    response = _decode(await search(index, query.count(rows)))
    assert response.hits.total
    return response.hits.total.value


async def _search(index: Index, body: Clause, window: Clause | None, size: int) -> Hits[Hit]:
    """Search the page in the window; if the page is not full, search among all rows."""
    if window is not None:
        hits = _decode(await search(index, query.within(body, window))).hits
        if len(hits.hits) > size:
            return hits
    return _decode(await search(index, body)).hits


def _window(first_pages: FirstPages, request: PageRequest, position: list[Any] | None, width: int) -> Clause | None:
    """Return the window to search first (see `windows`); None if there is none."""
    if request.order.creation_direction is None or request.with_total:
        return None
    ascending = windows.is_ascending(request.order, backward=request.paging.backward)
    if position:
        return windows.from_position(position, width, ascending=ascending)
    return first_pages.window(request.cursors.list_id) if ascending else None


def _pop_width(position: list[Any]) -> int:
    """Remove the window's width from a cursor's values, and return the width."""
    width = position.pop()
    if not isinstance(width, int) or not isinstance(position[0], int):
        raise invalid_cursor()
    return width
