"""An optimization for lists (docs/decisions/0009-index-sorting-and-page-windows.md, 0039-windows-for-every-sort.md).

OpenSearch visits all rows before a cursor, and for the first page of most sorts all rows of the list. So a page of a
large list is first searched in a window of sort values:

1. The window begins at the cursor. Its width follows from the distance between rows next to the cursor, because the
   next rows usually lie about as close together. If these rows have the same sort value, the window is a range of ids
   with this value. The window of a first page ends a little after the end of the same page last time.
2. If the window returns `size + 1` rows, the page is complete: no row outside of the window can belong to the page.
3. Otherwise the page is searched in a wider window, and then without a window.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from api.consumers.query import SortField
from api.consumers.text_windows import LAST, distance, far_end, folded
from infra.filters.clauses import Clause
from infra.ids import id_time
from infra.index.documents import name_order
from infra.wire import time

Value = int | str | None
"""A sort value: a number, milliseconds since 1970, a text, or null."""

LARGE = 1_000
"""Lists with fewer rows have no windows: OpenSearch sorts so few rows in less time than a second request takes."""
SPANS = 8
"""A window is as wide as so many times the distance over half of the rows of a page."""
SHRINKS = 4
"""From page to page, the width shrinks by one of so many parts at most."""
WIDER = 32
"""Factor from the first window to the second."""
MIN_ID_WIDTH = 1_000
"""Milliseconds."""
MAX_LISTS = 1_000
"""Lists in the memory of `FirstPages`."""


class Field(NamedTuple):
    """The field of the index with the ranges of a sort."""

    name: str
    not_null: str | None = None
    """The field that exists unless the sort value is null. None: the sort value is never null."""
    min_width: int = 0
    """Smallest width of a window of numbers or times; 0 for texts."""
    limits: tuple[int, int] = (0, 0)
    """Range of numbers or times. OpenSearch refuses numbers outside of the field's type."""
    is_time: bool = False


def _times(name: str, not_null: str | None = None) -> Field:
    """Return a field of times, of the years 1 to 9999."""
    return Field(name, not_null, 1_000, (-62_135_596_800_000, 253_402_300_799_999), is_time=True)


FIELDS: dict[SortField, Field] = {
    "createdAt": _times("createdAt"),
    "updatedAt": _times("updatedAt"),
    "lastOrderAt": _times("lastOrderAt", "lastOrderAt"),
    "totalOrders": Field("totalOrders", None, 1, (0, 2**31 - 1)),
    "totalOrderValue": Field("totalOrderValue", None, 1, (0, 2**63 - 1)),
    "email": Field("email", "email"),
    "fullName": Field("nameOrder", "nameOrder"),
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """A row in the order of a list."""

    id: str
    value: Value


class Spacing(NamedTuple):
    """How rows lie next to a row. Each cursor of a large list carries the spacing at its row."""

    value: Value
    """The row's sort value."""
    width: float
    """Of the next window: a difference of numbers, milliseconds, or a distance of texts (`text_windows.distance`)."""
    id_width: int | None = None
    """If rows next to the row have the same value: width of the next window of ids, in milliseconds."""


def half_a_page(number: int, rows: int) -> int:
    """Return the index of the row at a distance of half a page from a row, of a number of rows."""
    half = rows // 2
    return number + half if number < half else number - half


class Walk(NamedTuple):
    """The order of a list in the direction in which a page is read."""

    environment_id: int
    sort_by: SortField
    ascending: bool
    """Values and ids ascend."""
    from_end: bool
    """The list is read backward, nulls first."""

    def spacing(self, row: Row, other: Row, previous: float = 0) -> Spacing:
        """Return the spacing at a row.

        Args:
            row: the row.
            other: the row at a distance of half a page.
            previous: width of this page's window. The width shrinks by a quarter at most: after a burst of rows with
                almost the same value, the next windows must not be too narrow.
        """
        id_width = None
        if row.value == other.value:
            id_width = max(MIN_ID_WIDTH, SPANS * abs(id_time(row.id) - id_time(other.id)))
        apart: float = 0
        if isinstance(row.value, str) and isinstance(other.value, str):
            apart = float(distance(self._folded(row.value), self._folded(other.value)))
        elif isinstance(row.value, int) and isinstance(other.value, int):
            apart = abs(row.value - other.value)
        width = max(SPANS * apart, previous - previous // SHRINKS, self._field.min_width)
        return Spacing(row.value, width, id_width)

    def windows(self, position: Row, at: Spacing) -> Iterator[Clause]:
        """Yield the windows after a position, from narrow to wide.

        Each contains every row between the position and the window's end.
        """
        if at.id_width is not None:
            # Few rows have the same text, but half of the rows may have the same number.
            for factor in (1,) if isinstance(at.value, str) else (1, WIDER):
                yield _all(self._equal(at.value), self._ids(position.id, factor * at.id_width))
        if at.value is None:
            return
        for factor in (1, WIDER):
            yield self._range(at.value, self._end(at.value, factor * at.width))
        if isinstance(at.value, str):
            # The first word of the name or address may end here, and the next may be far away.
            yield self._range(at.value, self._folded(at.value)[:1] + LAST * self.ascending)

    def first_window(self, position: Row, at: Spacing, factor: int = 1) -> Clause:
        """Return a window with every row of the list up to a position, and some after the position.

        Args:
            position: the row.
            at: the spacing at this row.
            factor: how much wider the window is than usual.
        """
        nulls = [self._equal(None)] if self._field.not_null and self.from_end else []
        if at.value is None:
            before = [] if self.from_end else [{"exists": {"field": self._field.not_null}}]
            return _any(
                *before, _all(self._equal(None), self._ids(position.id, factor * (at.id_width or 0), whole=True))
            )
        if at.id_width is None:
            return _any(*nulls, self._range(None, self._end(at.value, factor * at.width)))
        equal = _all(self._equal(at.value), self._ids(position.id, factor * at.id_width, whole=True))
        return _any(*nulls, self._range(None, at.value, inclusive=False), equal)

    @property
    def _field(self) -> Field:
        return FIELDS[self.sort_by]

    def _end(self, value: int | str, width: float) -> int | str:
        """Return the far end of a window of sort values."""
        if isinstance(value, str):
            return far_end(self._folded(value), width, ascending=self.ascending)
        first, last = self._field.limits
        return max(first, min(last, value + int(width if self.ascending else -width)))

    def _folded(self, text: str) -> str:
        return folded(text) if self.sort_by == "fullName" else text

    def _equal(self, value: Value) -> Clause:
        if value is None:
            return {"bool": {"must_not": [{"exists": {"field": self._field.not_null}}]}}
        if isinstance(value, str):
            return {"term": {self._field.name: self._term(value)}}
        return {"range": {self._field.name: {"gte": self._term(value), "lte": self._term(value)}}}

    def _range(self, near: int | str | None, far: int | str, *, inclusive: bool = True) -> Clause:
        """Return the clause for values from `near`, by default from the first value, to `far`."""
        begin, end = ("gte", "lte" if inclusive else "lt") if self.ascending else ("lte", "gte" if inclusive else "gt")
        bounds = {end: self._term(far)}
        if near is not None or self.sort_by == "fullName":
            bounds[begin] = self._term("" if self.ascending else LAST) if near is None else self._term(near)
        return {"range": {self._field.name: bounds}}

    def _term(self, value: int | str) -> int | str:
        """Return a sort value as the index has the value."""
        if isinstance(value, int):
            # OpenSearch takes the end of a range as exclusive if it is a number of milliseconds before 1970.
            return time(EPOCH + timedelta(milliseconds=value)) if self._field.is_time else value
        return name_order(self.environment_id, value) if self.sort_by == "fullName" else value

    def _ids(self, consumer_id: str, width: int, *, whole: bool = False) -> Clause:
        """Return the clause for ids from an id to a distance, in milliseconds; `whole`: also all ids before."""
        near = id_time(consumer_id)
        begin, end = ("gte", "lte") if self.ascending else ("lte", "gte")
        bounds = {end: near + (width if self.ascending else -width)}
        return {"range": {"idTime": bounds if whole else {begin: near, **bounds}}}


class FirstPages:
    """Remembers for each list a window with the first page. A process has a single instance, filled by the pages read.

    A list with filters begins with a wider window of the list without filters.
    """

    def __init__(self) -> None:
        self._windows: dict[tuple[bytes | None, Walk, int], Clause | None] = {}

    def windows(self, list_id: bytes, walk: Walk, size: int) -> Iterator[Clause]:
        """Yield the window of the first page of a number of rows, if one is known."""
        own = (list_id, walk, size)
        if window := self._windows.get(own if own in self._windows else (None, walk, size)):
            yield window

    def learn(
        self, list_id: bytes, walk: Walk, size: int, end: tuple[Row, Spacing] | None, *, is_unfiltered: bool
    ) -> None:
        """Remember a first page.

        Args:
            list_id: of the list.
            walk: the order of the page.
            size: number of rows of the page.
            end: the row after the page; None if the list is too small for windows.
            is_unfiltered: the list has all rows of the environment.
        """
        # The default list needs no window for its first page, because the index is kept in its order.
        if walk.sort_by == "createdAt" and not walk.ascending:
            return
        if len(self._windows) >= MAX_LISTS:
            self._windows.clear()
        row, at = end or (None, None)
        self._windows[list_id, walk, size] = walk.first_window(row, at) if row and at else None
        if is_unfiltered:
            self._windows[None, walk, size] = walk.first_window(row, at, WIDER) if row and at else None


def _all(*clauses: Clause) -> Clause:
    return {"bool": {"filter": list(clauses)}}


def _any(*clauses: Clause) -> Clause:
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": list(clauses)}}
