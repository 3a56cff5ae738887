"""Times taken by turns, and what is told of them."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Work = Callable[[int], object]
"""Done once; its argument is the number of the turn."""


class Spread(NamedTuple):
    """The median with the tenth from either end: the fastest tenth hardly knows of whatever else runs here."""

    low: float
    median: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}}–{self.high:{spec}})"


def spread(values: Sequence[float]) -> Spread:
    """Of few values the ends are the least and the greatest."""
    if len(values) < 10:
        return Spread(min(values), statistics.median(values), max(values))
    tenths = statistics.quantiles(values, n=10)
    return Spread(tenths[0], statistics.median(values), tenths[-1])


def tail(values: Sequence[float]) -> float:
    """The 99th percentile; of fewer than a hundred values the greatest."""
    return statistics.quantiles(values, n=100)[-1] if len(values) >= 100 else max(values)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def by_turns(ways: Mapping[str, Work], turns: int, *, warm_up: int = 1, in_a_row: int = 0) -> dict[str, list[float]]:
    """Milliseconds of each way, which take turns, each turn in the other order than the one before.

    Args:
        ways: what is done, by name.
        turns: that are measured.
        warm_up: turns before them.
        in_a_row: times that are measured of each turn, after one that is not: it pays for what the others left in the
            processor's caches, and would be dearer the more the others do. None: each turn is one time, measured.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-warm_up, turns):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            for place in range(in_a_row + 1):
                started = time.perf_counter()
                ways[name]((turn + warm_up) * (in_a_row + 1) + place)
                if turn >= 0 and (place or not in_a_row):
                    times[name].append((time.perf_counter() - started) * 1000)
    return times


def exponent(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """How a figure grows with the size, from the least to the greatest: 0 not at all, 1 linearly."""
    return math.log(figures[-1] / figures[0]) / math.log(sizes[-1] / sizes[0])
