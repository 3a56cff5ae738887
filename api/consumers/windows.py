"""An optimization for `sortBy=createdAt` (docs/decisions/0009-index-sorting-and-page-windows.md).

OpenSearch visits all rows before a cursor, and all rows of the list to find the oldest. So a page is first
searched in a time window:

1. The window begins at the cursor. The width follows from the time span of the previous page, because the next rows
   usually lie about as close together. The first page in ascending order uses the end of the same page last time.
2. If the window returns `size + 1` rows, the page is complete: no row outside of the window can belong to the page.
3. Otherwise the page is searched again without the window.
"""

from collections.abc import Sequence
from typing import Any

from api.consumers.query import Order
from infra.filters.clauses import Clause

MIN_WIDTH_MS, SPANS = 1_000, 4
"""A window is four times as wide as the time span of the page before, and at least a second."""
MAX_LISTS = 1_000
"""Lists in the memory of `FirstPages`."""


def next_width(times: Sequence[int], previous: int) -> int:
    """Return the width of the next page's window, in milliseconds.

    Args:
        times: creation times of the page's rows, in order.
        previous: width of this page's window. The width at most halves from page to page: after a burst of rows
            created together, the next windows must not be too narrow.
    """
    return max(MIN_WIDTH_MS, SPANS * abs(times[-1] - times[0]), previous // 2)


def is_ascending(order: Order, *, backward: bool) -> bool:
    """Return whether a walk goes from the oldest row to the newest."""
    return order.creation_direction == ("desc" if backward else "asc")


def from_position(position: Sequence[Any], width: int, *, ascending: bool) -> Clause:
    """Return the window beginning at a position."""
    created_at = position[0]
    return _created(created_at, created_at + width) if ascending else _created(created_at - width, created_at)


class FirstPages:
    """Remembers for each list the end of the oldest page. A process has a single instance, filled by the pages read."""

    def __init__(self) -> None:
        self._ends: dict[bytes, int] = {}

    def window(self, list_id: bytes) -> Clause | None:
        end = self._ends.get(list_id)
        return None if end is None else _created(None, end)

    def learn(self, list_id: bytes, times: Sequence[int]) -> None:
        if len(self._ends) >= MAX_LISTS:
            self._ends.clear()
        self._ends[list_id] = times[-1] + next_width(times, 0)


def _created(first: int | None, last: int) -> Clause:
    bounds = {"lte": last} if first is None else {"gte": first, "lte": last}
    return {"range": {"createdAt": {**bounds, "format": "epoch_millis"}}}
