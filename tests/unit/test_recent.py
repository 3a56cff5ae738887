"""Values that are computed at most once in a period."""

import asyncio

import pytest

from api.recent import Recent


class Counting:
    """A computation that returns how many times it ran, and fails when told to."""

    def __init__(self) -> None:
        self.runs, self.fails = 0, False

    async def __call__(self) -> int:
        self.runs += 1
        await asyncio.sleep(0)
        if self.fails:
            raise ConnectionError
        return self.runs


def test_value_is_computed_once_in_a_period() -> None:
    compute, times = Counting(), iter([0.0, 9.9, 10.0, 10.0])

    async def run() -> list[int]:
        recent = Recent(10.0, compute, lambda: next(times))
        return [await recent.value() for _ in range(3)]

    assert asyncio.run(run()) == [1, 1, 2]


def test_concurrent_requests_share_a_computation() -> None:
    compute = Counting()

    async def run() -> list[int]:
        recent = Recent(10.0, compute, lambda: 0.0)
        return await asyncio.gather(*(recent.value() for _ in range(50)))

    assert asyncio.run(run()) == [1] * 50


def test_cancelled_request_does_not_end_the_computation_of_others() -> None:
    compute = Counting()

    async def run() -> int:
        recent = Recent(10.0, compute, lambda: 0.0)
        first, second = (asyncio.create_task(recent.value()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(run()) == 1


def test_failure_is_not_kept() -> None:
    compute = Counting()

    async def run() -> int:
        recent = Recent(10.0, compute, lambda: 0.0)
        compute.fails = True
        with pytest.raises(ConnectionError):
            await recent.value()
        compute.fails = False
        return await recent.value()

    assert asyncio.run(run()) == 2
