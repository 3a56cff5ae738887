"""Gates: places of an environment, the queue, and refusals."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import cast

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api import budget
from api.auth import Caller
from api.budget import Budget, Gate
from api.errors import Problem
from tests.seals import fixed_seal

NEVER, SOON = 60.0, 0.001


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


class Requests:
    """Requests at a gate, each of which holds its place until it is told to leave."""

    def __init__(self, gate: Gate) -> None:
        self.gate, self.admitted = gate, list[str]()
        self._leave: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def send(self, name: str, key: str = "a") -> asyncio.Task[None]:
        self._leave[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._hold(name, key))
        await settle()
        return self._tasks[name]

    async def leave(self, name: str) -> None:
        self._leave[name].set()
        await self._tasks[name]
        await settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        with suppress(asyncio.CancelledError):
            await self._tasks[name]
        await settle()

    async def _hold(self, name: str, key: str) -> None:
        async with self.gate.admit(key):
            self.admitted.append(name)
            await self._leave[name].wait()


async def settle() -> None:
    """Give every ready task its turn."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_places_are_counted_per_key_and_passed_on_in_order() -> None:
    async def work() -> None:
        requests = Requests(Gate(2, NEVER, "searches"))
        for name in ("1", "2", "3", "4"):
            await requests.send(name)
        assert requests.admitted == ["1", "2"]
        await requests.send("other", key="b")
        assert requests.admitted == ["1", "2", "other"]
        await requests.leave("2")
        await requests.leave("1")
        assert requests.admitted == ["1", "2", "other", "3", "4"]
        for name in ("3", "4", "other"):
            await requests.leave(name)
        await requests.send("5")
        await requests.send("6")
        assert requests.admitted[-2:] == ["5", "6"]

    run(work)


def test_request_that_waits_too_long_is_refused_and_takes_no_place() -> None:
    async def work() -> None:
        requests = Requests(Gate(1, SOON, "searches of an environment"))
        await requests.send("1")
        late = await requests.send("2")
        with pytest.raises(Problem) as refusal:
            await late
        assert (refusal.value.status, refusal.value.error) == (429, "Too many concurrent requests")
        assert refusal.value.message == (
            "Maximum of searches of an environment at the same time: 1. Send fewer requests at the same time"
        )
        assert refusal.value.headers == {"Retry-After": "1"}
        await requests.leave("1")
        await requests.send("3")
        assert requests.admitted == ["1", "3"]

    run(work)


def test_cancelled_requests_give_up_their_place() -> None:
    async def work() -> None:
        requests = Requests(Gate(1, NEVER, "searches"))
        for name in ("1", "2", "3"):
            await requests.send(name)
        await requests.cancel("2")
        await requests.cancel("1")
        assert requests.admitted == ["1", "3"]

    run(work)


def test_place_passed_to_a_cancelled_request_is_passed_on() -> None:
    async def work() -> None:
        requests = Requests(Gate(1, NEVER, "searches"))
        first, second, _ = [await requests.send(name) for name in ("1", "2", "3")]
        first.cancel()
        await asyncio.sleep(0)  # the first request leaves and passes its place on
        second.cancel()
        await settle()
        assert requests.admitted == ["1", "3"]

    run(work)


def requester(environment_id: int) -> Caller:
    return Caller(
        key_id="key",
        environment_id=environment_id,
        mode="live",
        organization_id="org",
        scopes=frozenset(),
        seal=fixed_seal(),
    )


@pytest.mark.parametrize("others_are_active", [False, True])
def test_expensive_searches_pause_while_other_environments_are_active(
    monkeypatch: pytest.MonkeyPatch, *, others_are_active: bool
) -> None:
    monkeypatch.setattr(budget, "SEARCH_WAIT_SECONDS", SOON)
    monkeypatch.setattr(budget, "PAUSE", 10**9)

    async def work() -> None:
        gates = Budget(cast("AsyncEngine", None), searches=4, connections=1)
        first, second = requester(1), requester(2)
        async with gates.search(second, expensive=True):
            pass
        async with gates.search(first, expensive=True):
            if others_are_active:
                async with gates.search(second, expensive=False):
                    pass
            async with gates.search(first, expensive=False):
                pass
            with pytest.raises(Problem, match="Too many concurrent requests"):
                await gates.search(first, expensive=True).__aenter__()
        async with gates.search(first, expensive=False), gates.search(second, expensive=True):
            pass
        refused = pytest.raises(Problem, match="Too many concurrent requests") if others_are_active else nullcontext()
        with refused:
            await gates.search(first, expensive=True).__aenter__()

    run(work)


@pytest.mark.parametrize(
    ("others_are_active", "begins"), [(False, True), (True, True), (True, False)], ids=["alone", "others", "refused"]
)
def test_questions_run_one_by_one_and_pause_while_others_are_active(
    monkeypatch: pytest.MonkeyPatch, *, others_are_active: bool, begins: bool
) -> None:
    """A question that got no place of all processes never begins, so no other question waits for its pause."""
    monkeypatch.setattr(budget, "QUESTION_WAIT_SECONDS", SOON)
    monkeypatch.setattr(budget, "QUESTION_PAUSE", 10**9)
    monkeypatch.setattr(budget, "LONGEST_QUESTION_PAUSE_SECONDS", NEVER)

    async def work() -> None:
        gates = Budget(cast("AsyncEngine", None), searches=4, connections=1)
        first, second, third = (requester(number) for number in (1, 2, 3))

        async def is_refused(asking: Caller) -> bool:
            with suppress(Problem):
                async with gates.question(asking):
                    return False
            return True

        async with gates.question(first) as question:
            if begins:
                question.begin()
            assert await is_refused(first)
            async with gates.search(second if others_are_active else first, expensive=False):
                pass
        is_paused = others_are_active and begins
        assert await is_refused(first) == is_paused
        if not is_paused:
            async with gates.question(second), gates.question(third):
                assert await is_refused(first)
                assert await is_refused(second)

    run(work)


@pytest.mark.parametrize("others_are_active", [False, True])
def test_waiting_writes_of_a_row_pause_while_others_are_active(
    monkeypatch: pytest.MonkeyPatch, *, others_are_active: bool
) -> None:
    monkeypatch.setattr(budget, "WRITE_PAUSE", 10**9)
    monkeypatch.setattr(budget, "LONGEST_WRITE_PAUSE_SECONDS", NEVER)

    async def work() -> None:
        gates = Budget(cast("AsyncEngine", None), searches=1, connections=1)
        first, second = requester(1), requester(2)

        async def write() -> None:
            async with gates.row(first, "aud_1"):
                pass

        async with gates.search(second if others_are_active else first, expensive=False):
            pass
        await write()
        async with gates.row(first, "aud_1"):
            waiting = asyncio.create_task(write())
            await settle()
            async with gates.row(first, "aud_2"), gates.row(second, "aud_1"):
                pass
        await settle()
        assert waiting.done() == (not others_are_active)
        waiting.cancel()

    run(work)


@pytest.mark.parametrize("others_are_active", [False, True])
def test_batches_take_turns_while_others_are_active(
    monkeypatch: pytest.MonkeyPatch, *, others_are_active: bool
) -> None:
    monkeypatch.setattr(budget, "BATCH_PAUSE", 0)

    async def work() -> None:
        gates = Budget(cast("AsyncEngine", None), searches=1, connections=1)
        first, second = requester(1), requester(2)
        written = 0

        async def write() -> None:
            nonlocal written
            async with gates.batch(first):
                written += 1

        async with gates.search(second if others_are_active else first, expensive=False):
            pass
        async with gates.batch(first):
            writes = [asyncio.create_task(write()) for _ in range(2)]
            await settle()
            assert written == (0 if others_are_active else 2)
            async with gates.batch(second):
                pass
        await asyncio.gather(*writes)

    run(work)


def test_failed_request_gives_up_its_place() -> None:
    async def work() -> None:
        gate = Gate(1, SOON, "searches")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                async with gate.admit("a"):
                    raise ZeroDivisionError

    run(work)
