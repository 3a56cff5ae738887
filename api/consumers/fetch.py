"""The read path: pages of consumers from the index. Rows pass through as the bytes they were indexed with."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from api.consumers import query, windows
from api.consumers.windows import Oldest
from api.errors import Problem
from api.pages import Window, render
from api.search import Index, search
from infra.filters.clauses import Clause
from infra.index.hits import Hits, SearchResponse, SourceHit


class Source(msgspec.Struct, rename="camel"):
    row: msgspec.Raw
    audience_ids: list[str]


Hit = SourceHit[Source]

_decode = msgspec.json.Decoder(SearchResponse[Hit]).decode


class Asked(NamedTuple):
    """Which rows, in which order, and which page of them; `question` identifies the list, and its cursors."""

    rows: Clause
    order: query.Order
    window: Window
    question: bytes
    counted: bool = False


Members = Callable[[Sequence[Hit]], Awaitable[Iterable[bytes]]]
"""What is put into each row besides: members of its JSON object, each with its leading comma."""


async def page(index: Index, oldest: Oldest, asked: Asked, more: Members | None = None) -> bytes:
    """One page as the response's JSON.

    Raises:
        Problem: 400 for a cursor that is damaged, expired or of another list.
        OpenSearchException: the index cannot answer.
    """
    order, window = asked.order, asked.window
    place = window.place(asked.question, order.values + bool(order.creation))
    reach = _reach(place) if place and order.creation else 0
    body = query.page(asked.rows, order, window.size, place, backward=window.backward, counted=asked.counted)
    found = await _found(index, body, _near(oldest, asked, place, reach), window.size)
    goes_on = len(found.hits) > window.size
    places = [hit.sort[len(order.prefix) :] for hit in found.hits]
    if places and order.creation:
        moments = [values[0] for values in places]
        if goes_on and not place and windows.is_rising(order, backward=window.backward):
            oldest.learn(asked.question, moments)
        reach = windows.reach(moments, reach)
        places = [[*values, reach] for values in places]
    hits, places = found.hits[: window.size], places[: window.size]
    if window.backward:
        hits.reverse()
        places.reverse()
    info = window.info(asked.question, places, more=goes_on)
    rows = [bytes(hit.source.row) for hit in hits]
    if more and hits:
        rows = [row[:-1] + added + b"}" for row, added in zip(rows, await more(hits), strict=True)]
    return render(rows, info, found.total.value if found.total else None)


async def count(index: Index, rows: Clause) -> int:
    """How many rows there are, exactly.

    Raises:
        OpenSearchException: the index cannot answer.
    """
    found = _decode(await search(index, query.count(rows)))
    assert found.hits.total
    return found.hits.total.value


async def _found(index: Index, body: Clause, near: Clause | None, size: int) -> Hits[Hit]:
    """A page's rows: looked for near its place first, and if that is not all of them, everywhere."""
    if near is not None:
        found = _decode(await search(index, query.within(body, near))).hits
        if len(found.hits) > size:
            return found
    return _decode(await search(index, body)).hits


def _near(oldest: Oldest, asked: Asked, place: list[Any] | None, reach: int) -> Clause | None:
    """Where to look first, if anywhere."""
    if asked.order.creation is None or asked.counted:
        return None
    rising = windows.is_rising(asked.order, backward=asked.window.backward)
    if place:
        return windows.beside(place, reach, rising=rising)
    return oldest.rows(asked.question) if rising else None


def _reach(place: list[Any]) -> int:
    """Take it off a cursor's values."""
    reach = place.pop()
    if not isinstance(reach, int) or not isinstance(place[0], int):
        raise Problem(HTTPStatus.BAD_REQUEST, "Validation failed", message="Invalid cursor")
    return reach
