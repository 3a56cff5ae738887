"""Room for large bodies: a process holds only so many bytes of them at a time.

A body of 10 MiB needs several times its size until its response is sent. A larger number of such requests at once waits
for its turn before most of the body is received: the client is then slowed down by its connection.
"""

import asyncio
from collections import Counter, deque
from typing import NamedTuple

from api.route_options import LIST_BODY_BYTES

PROCESS_BYTES = 4 * LIST_BODY_BYTES
ENVIRONMENT_BYTES = LIST_BODY_BYTES
"""A single environment cannot take all of the room."""


class _Waiter(NamedTuple):
    owner: str
    size: int
    admitted: asyncio.Future[None]


class Room:
    """The room of a process. Bodies enter in order of arrival; a body whose environment is full lets others pass."""

    def __init__(self) -> None:
        self._used = Counter[str]()
        self._waiting: deque[_Waiter] = deque()

    async def enter(self, owner: str, size: int) -> None:
        """Take room for a body; wait until there is room.

        Args:
            owner: the environment of the request.
            size: bytes of the body, at most `LIST_BODY_BYTES`.
        """
        waiter = _Waiter(owner, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._admit()
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            else:
                self.leave(owner, size)
            raise

    def leave(self, owner: str, size: int) -> None:
        """Give back the room of a body."""
        self._used[owner] -= size
        if not self._used[owner]:
            del self._used[owner]
        self._admit()

    def is_wanted(self) -> bool:
        """Return whether a body waits only because other environments have taken the room."""
        return any(self._has_share(waiter) for waiter in self._waiting)

    def _admit(self) -> None:
        for waiter in list(self._waiting):
            if not self._has_share(waiter):
                continue
            if self._used.total() + waiter.size > PROCESS_BYTES:
                return
            self._waiting.remove(waiter)
            if not waiter.admitted.cancelled():
                self._used[waiter.owner] += waiter.size
                waiter.admitted.set_result(None)

    def _has_share(self, waiter: _Waiter) -> bool:
        return self._used[waiter.owner] + waiter.size <= ENVIRONMENT_BYTES
