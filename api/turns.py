"""Turns: long work of a request is done in steps, and other requests get their turn in between.

A process has a single event loop. Work without an end to the turn, such as checking 10 MiB, would delay every other
request of the process (docs/decisions/0019-large-requests-in-steps.md).
"""

import asyncio
import time
from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]
"""Work that may be interrupted at each `yield`. A step must be short: bounded in bytes or in items."""

TURN_SECONDS = 0.002
"""How long a request may work before other requests get their turn."""
PASSES = 32
"""Passes of the event loop between turns. Another request takes 20 to 30 passes, and would wait for a turn in each. A
pass without work takes about a microsecond."""


class Turns:
    """Does work in steps. Work that exceeds a turn shares the time: a single turn at a time, in order of arrival.

    The application has a single instance. Without a common order, ten large requests would take ten turns in a row.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def run(self, steps: Steps[T], *, waits: bool = False) -> T:
        """Do all steps, and return the result of the work.

        Args:
            steps: the work.
            waits: whether the first turn is taken in order of arrival too. Work that fits in a turn should not wait for
                the long work of others, but a hundred such turns at once would delay every other request.
        """
        try:
            if not waits:
                _take_turn(steps)
            while True:
                async with self._lock:
                    await _let_others_run()
                    _take_turn(steps)
        except StopIteration as finished:
            result: T = finished.value
            return result

    async def wait(self) -> None:
        """Wait for a turn, in order of arrival, before short work: a hundred requests at once do it one by one."""
        async with self._lock:
            await _let_others_run()


async def _let_others_run() -> None:
    for _ in range(PASSES):
        await asyncio.sleep(0)


def _take_turn(steps: Steps[T]) -> None:
    """Do steps for the time of a turn.

    Raises:
        StopIteration: the work is finished; carries the result.
    """
    ends = time.perf_counter() + TURN_SECONDS
    next(steps)
    while time.perf_counter() < ends:
        next(steps)
