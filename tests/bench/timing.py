"""Measure times in alternation, and summarise them."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Work = Callable[[int], object]
"""A piece of work to measure; the argument is the number of the turn."""


class Spread(NamedTuple):
    """Median, 10th and 90th percentile; the 10th percentile is hardly affected by other load on the machine."""

    low: float
    median: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}}–{self.high:{spec}})"


def spread(values: Sequence[float]) -> Spread:
    """Summarise values; for fewer than ten values the ends are minimum and maximum."""
    if len(values) < 10:
        return Spread(min(values), statistics.median(values), max(values))
    tenths = statistics.quantiles(values, n=10)
    return Spread(tenths[0], statistics.median(values), tenths[-1])


def tail(values: Sequence[float]) -> float:
    """Return the 99th percentile; for fewer than 100 values the maximum."""
    return statistics.quantiles(values, n=100)[-1] if len(values) >= 100 else max(values)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def by_turns(ways: Mapping[str, Work], turns: int, *, warm_up: int = 1, in_a_row: int = 0) -> dict[str, list[float]]:
    """Measure ways in alternation, and return the milliseconds of each; every turn reverses the order.

    Args:
        ways: the work to measure, by name.
        turns: number of measured turns.
        warm_up: number of turns before.
        in_a_row: measured repeats per turn, after an unmeasured first: the first repeat refills the processor's caches
            after the other ways, and costs more the more these do. 0: each turn is a single measured repeat.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-warm_up, turns):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            for repeat in range(in_a_row + 1):
                started = time.perf_counter()
                ways[name]((turn + warm_up) * (in_a_row + 1) + repeat)
                if turn >= 0 and (repeat or not in_a_row):
                    times[name].append((time.perf_counter() - started) * 1000)
    return times


def exponent(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """Return the exponent of growth from the smallest to the largest size: 0 is constant, 1 is linear."""
    return math.log(figures[-1] / figures[0]) / math.log(sizes[-1] / sizes[0])
