"""Values that are computed at most once in a period, however many requests need them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The last value of a computation, repeated when the value is older than the period.

    Requests that arrive during a computation wait for its result.
    """

    def __init__(
        self, seconds: float, compute: Callable[[], Awaitable[T]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._compute, self._clock = seconds, compute, clock
        self._task: asyncio.Task[T] | None = None
        self._computed_at = 0.0

    async def value(self) -> T:
        task = self._task
        if task is None or (task.done() and (_failed(task) or self._clock() - self._computed_at >= self._seconds)):
            task = self._task = asyncio.create_task(self._measured())
        # The computation continues for the other requests if one request is cancelled.
        return await asyncio.shield(task)

    async def _measured(self) -> T:
        value = await self._compute()
        self._computed_at = self._clock()
        return value


def _failed(task: asyncio.Task[T]) -> bool:
    return task.cancelled() or task.exception() is not None
