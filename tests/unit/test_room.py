"""Large bodies wait for room, and no environment keeps others waiting for its own share."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest

from api import bodies
from api.auth import Requester
from api.bodies import RequestBody
from api.errors import Problem
from api.room import ENVIRONMENT_BYTES, PROCESS_BYTES, Room
from api.route_options import OBJECT_BODY_BYTES, route_options

MIB = 1024 * 1024
Enter = Callable[[str, int], Awaitable[bool]]


def with_room(scenario: Callable[[Room, Enter], Awaitable[None]]) -> None:
    async def run() -> None:
        room, tasks = Room(), set[asyncio.Task[None]]()

        async def enter(owner: str, size: int) -> bool:
            """Try to enter; return whether there was room at once. If not, the body goes on waiting."""
            task = asyncio.create_task(room.enter(owner, size))
            tasks.add(task)
            for _ in range(3):
                await asyncio.sleep(0)
            return task.done()

        await scenario(room, enter)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def test_environment_waits_for_its_own_bodies_and_no_other() -> None:
    async def scenario(room: Room, enter: Enter) -> None:
        assert await enter("a", ENVIRONMENT_BYTES)
        assert not await enter("a", MIB)
        assert not room.is_wanted()
        assert await enter("b", MIB)
        room.leave("a", ENVIRONMENT_BYTES)
        assert not await enter("a", ENVIRONMENT_BYTES)  # the earlier body of a has entered

    with_room(scenario)


def test_environment_may_have_several_smaller_bodies_at_once() -> None:
    async def scenario(_: Room, enter: Enter) -> None:
        assert all([await enter("a", MIB) for _ in range(ENVIRONMENT_BYTES // MIB)])
        assert not await enter("a", MIB)

    with_room(scenario)


def test_full_process_admits_bodies_in_order_of_arrival() -> None:
    async def scenario(room: Room, enter: Enter) -> None:
        full = [str(number) for number in range(PROCESS_BYTES // ENVIRONMENT_BYTES)]
        assert all([await enter(owner, ENVIRONMENT_BYTES) for owner in full])
        assert not await enter("large", ENVIRONMENT_BYTES)
        assert not await enter("small", MIB)
        assert room.is_wanted()
        room.leave(full[0], ENVIRONMENT_BYTES)
        assert not await enter("next", MIB)
        room.leave(full[1], ENVIRONMENT_BYTES)
        assert not room.is_wanted()
        assert await enter("last", MIB)

    with_room(scenario)


def test_cancelled_body_gives_its_room_to_the_next() -> None:
    async def scenario(room: Room, enter: Enter) -> None:
        assert await enter("a", ENVIRONMENT_BYTES)
        waiting = asyncio.create_task(room.enter("a", MIB))
        await asyncio.sleep(0)
        room.leave("a", ENVIRONMENT_BYTES)  # admits, but the task has not run again yet
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert await enter("a", ENVIRONMENT_BYTES)

    with_room(scenario)


class Sender:
    """The body of a request, received in parts by the application."""

    def __init__(self, room: Room, sizes: Sequence[int], announced: int | None = None) -> None:
        headers = [] if announced is None else [(b"content-length", str(announced).encode())]
        options = route_options("write:consumers", "batch", batch_key="consumers")
        requester = Requester(key_id="key")
        scope: Any = {
            "headers": headers,
            "auth": requester,
            "state": {},
            "litestar_app": SimpleNamespace(state=SimpleNamespace(room=room)),
            "route_handler": SimpleNamespace(opt=options),
        }
        self._sizes, self.received = iter(sizes), 0
        self.body = RequestBody(scope, self._receive)

    async def _receive(self) -> Any:
        return {"type": "http.request", "body": b" " * next(self._sizes), "more_body": True}

    async def receive(self, parts: int) -> None:
        for _ in range(parts):
            message: Any = await self.body.receive()
            self.received += len(message["body"])


@pytest.mark.parametrize("announced", [None, 2 * ENVIRONMENT_BYTES // 3])
def test_large_body_is_not_received_before_there_is_room(announced: int | None) -> None:
    async def scenario(room: Room, __: Enter) -> None:
        sizes = [OBJECT_BODY_BYTES, 1, MIB]
        first, second = Sender(room, sizes, announced), Sender(room, sizes, announced)
        await first.receive(3)
        waiting = asyncio.create_task(second.receive(3))
        for _ in range(5):
            await asyncio.sleep(0)
        assert second.received == OBJECT_BODY_BYTES
        first.body.close()
        await waiting
        assert second.received == sum(sizes)

    with_room(scenario)


def test_slow_body_is_refused_only_if_another_environment_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "ROOM_SECONDS", 0)

    async def scenario(room: Room, enter: Enter) -> None:
        slow = Sender(room, [OBJECT_BODY_BYTES + 1, *[1] * 5])
        await slow.receive(2)
        assert not await enter("key", MIB)  # the sender's own environment
        await slow.receive(1)
        for owner in ("a", "b", "c"):
            assert await enter(owner, ENVIRONMENT_BYTES)
        await slow.receive(1)
        assert not await enter("d", MIB)
        with pytest.raises(Problem) as refused:
            await slow.receive(1)
        assert refused.value.status == HTTPStatus.REQUEST_TIMEOUT

    with_room(scenario)
