"""The read path: pages of consumers from OpenSearch. A row is sent as the indexed bytes."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from api.consumers import query, windows
from api.consumers.windows import FirstPages, Row, Spacing, Walk
from api.cursors import Cursors, Position
from api.errors import invalid_cursor
from api.pages import Paging, render
from api.search import Index, search
from infra.filters.clauses import Clause
from infra.index.hits import SearchResponse, SourceHit
from infra.index.mapping import NO_TIMES


class Source(msgspec.Struct, rename="camel"):
    row: msgspec.Raw
    audience_ids: list[str]


class Name(msgspec.Struct, rename="camel"):
    """The name in a row."""

    full_name: str | None


Hit = SourceHit[Source]

decode = msgspec.json.Decoder(SearchResponse[Hit]).decode
_decode_name = msgspec.json.Decoder(Name).decode


class PageRequest(NamedTuple):
    """A page to read: the rows of the list, their order, and the requested page."""

    rows: Clause
    order: query.Order
    paging: Paging
    cursors: Cursors
    with_total: bool = False

    @property
    def is_unfiltered(self) -> bool:
        """Whether the list has all rows of the environment."""
        return self.rows == query.list_query(self.cursors.environment_id)

    @property
    def walk(self) -> Walk | None:
        """The order in the direction of the page; None for a search, which is ordered by score."""
        order = self.order
        if order.sort_by is None:
            return None
        ascending = (order.direction == "asc") != self.paging.backward
        return Walk(self.cursors.environment_id, order.sort_by, ascending, self.paging.backward)


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
    paging = request.paging
    position = _position(request)
    hits, is_large = await _search(index, first_pages, request, position)
    has_more = len(hits) > paging.size
    shown = hits[: paging.size]
    rows = [bytes(hit.source.row) for hit in shown]
    if extra_members and shown:
        rows = _extended(rows, await extra_members(index, shown))
        has_more = has_more or len(rows) < len(shown)
    total = None
    if request.with_total:
        # Counting is faster without sorting. A list with a single page was counted by its search.
        total = len(rows) if position is None and not has_more else await count(index, request.rows)
    both = list(ends(request, position, hits, len(rows), is_large=is_large))
    if paging.backward:
        rows.reverse()
        both.reverse()
    return render(rows, paging.page_info(request.cursors, both, has_more=has_more), total)


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
    response = decode(await search(index, query.count(rows)))
    assert response.hits.total
    return response.hits.total.value


async def _search(
    index: Index, first_pages: FirstPages, request: PageRequest, position: Position | None
) -> tuple[list[Hit], bool]:
    """Search the rows of the page and the next row. Also return whether the list is large."""
    size, walk, cursors = request.paging.size, request.walk, request.cursors
    values = position.values[: request.order.position_length] if position else None
    body = query.page(request.rows, request.order, size, values, backward=request.paging.backward)
    if walk is None:
        return decode(await search(index, body)).hits.hits, False
    searched = windows_after(walk, position) if position else first_pages.windows(cursors.list_id, walk, size)
    hits: list[Hit] = []
    is_large = True
    for window in searched:
        hits = decode(await search(index, query.within(body, window))).hits.hits
        if len(hits) > size:
            break
    else:
        found = decode(await search(index, body | {"track_total_hits": windows.LARGE})).hits
        hits, is_large = found.hits, bool(found.total and found.total.value >= windows.LARGE)
    if position is None:
        last = end(request.order, walk, hits, size) if is_large and len(hits) > size else None
        first_pages.learn(cursors.list_id, walk, size, last, is_unfiltered=request.is_unfiltered)
    return hits, is_large


def windows_after(walk: Walk, position: Position) -> Iterator[Clause]:
    """Return the windows after a position."""
    at = _spacing(position)
    return walk.windows(Row(position.values[1], at.value), at) if at else iter(())


def _spacing(position: Position | None) -> Spacing | None:
    """Return the spacing that a cursor carries."""
    return Spacing(*position.spacing) if position and position.spacing else None  # type: ignore[arg-type]  # by `ends`


def ends(
    request: PageRequest, position: Position | None, hits: Sequence[Hit], shown: int, *, is_large: bool
) -> Iterator[Position]:
    """Yield the positions of the first and the last row of the page; none for an empty page."""
    order, walk = request.order, request.walk
    before = _spacing(position)
    for number in (0, shown - 1) if shown else ():
        values = hits[number].sort[len(order.prefix) :]
        spacing = end(order, walk, hits, number, before.width if before else 0)[1] if walk and is_large else None
        if order.sort_by == "createdAt":
            # The release before requires the width of the window.
            values = [*values, spacing.width if spacing else 0]
        yield Position(values, spacing or ())


def end(order: query.Order, walk: Walk, hits: Sequence[Hit], number: int, width: float = 0) -> tuple[Row, Spacing]:
    """Return a hit as a row, with the spacing at it."""
    row, other = (_row(order, hits[each]) for each in (number, windows.half_a_page(number, len(hits))))
    return row, walk.spacing(row, other, width)


def _row(order: query.Order, hit: Hit) -> Row:
    """Return a hit as a row of the order."""
    value = hit.sort[len(order.prefix)]
    if order.sort_by == "fullName":
        value = _decode_name(hit.source.row).full_name
    elif order.sort_by == "lastOrderAt" and value in NO_TIMES:
        value = None
    return Row(hit.id, value)


def _position(request: PageRequest) -> Position | None:
    """Return the position of the cursor; None without a cursor.

    Raises:
        Problem: 400 for a damaged or expired cursor, or a cursor of another list.
    """
    is_by_creation = request.order.sort_by == "createdAt"
    # Ordered by creation, a cursor of the release before also has the width of its window, as the last value.
    position = request.paging.position(request.cursors, request.order.position_length + is_by_creation)
    if position and is_by_creation and not all(isinstance(position.values[number], int) for number in (0, -1)):
        raise invalid_cursor()
    return position
