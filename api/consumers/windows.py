"""Where a page of the list by creation is looked for first (docs/decisions/0009-index-sorting-and-page-windows.md).

OpenSearch passes over all rows before a cursor, and looks at every row there is to find the oldest. But the rows that
follow a page lie about as close together as its own, so they are looked for there; and the oldest where they were the
last time. Only a page that is full and goes on is taken from such a window, for then all its rows lie in it; otherwise
all rows are asked.
"""

from collections.abc import Sequence
from typing import Any

from api.consumers.query import Order
from infra.filters.clauses import Clause

LEAST_REACH, SPANS = 1_000, 4
"""A window is four times as wide as the page before it, and a second at least."""
LISTS = 1_000
"""Lists whose oldest rows are remembered."""


def reach(moments: Sequence[int], before: int) -> int:
    """How many milliseconds from a page on the next one is looked for.

    Args:
        moments: of the page's rows, in order.
        before: how far was looked for this one; after a burst that is forgotten slowly.
    """
    return max(LEAST_REACH, SPANS * abs(moments[-1] - moments[0]), before // 2)


def is_rising(order: Order, *, backward: bool) -> bool:
    """Whether a walk goes from the oldest to the newest."""
    return order.creation == ("desc" if backward else "asc")


def beside(place: Sequence[Any], reach: int, *, rising: bool) -> Clause:
    """The rows created not long after a place, or before it."""
    moment = place[0]
    return _created(moment, moment + reach) if rising else _created(moment - reach, moment)


class Oldest:
    """Until when the oldest rows of lists were created. One a process; what it does not know, it learns."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}

    def rows(self, question: bytes) -> Clause | None:
        known = self._known.get(question)
        return None if known is None else _created(None, known)

    def learn(self, question: bytes, moments: Sequence[int]) -> None:
        if len(self._known) >= LISTS:
            self._known.clear()
        self._known[question] = moments[-1] + reach(moments, 0)


def _created(first: int | None, last: int) -> Clause:
    bounds = {"lte": last} if first is None else {"gte": first, "lte": last}
    return {"range": {"createdAt": {**bounds, "format": "epoch_millis"}}}
