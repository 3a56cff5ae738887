"""Points in time of live questions: a client walks through the index of a single moment.

With the id of OpenSearch, a search would need no filter of the environment. So a client gets a sealed id, for the
environment of the key alone.
"""

import itertools
import time
from collections.abc import Sequence
from http import HTTPStatus

from api.auth import Caller
from api.error_codes import ErrorCode
from api.errors import TOO_MANY_REQUESTS, Problem
from api.search import Index, close_points_in_time, open_point_in_time
from infra.seals import Seal, SealError

KEEP_SECONDS = 120
KEEP_ALIVE = f"{KEEP_SECONDS}s"
MAX_POINTS, MAX_ALL_POINTS = 2, 100
"""Points in time that a process holds, of an environment and of all: each keeps files of the index, and OpenSearch
allows 300."""


class Points:
    """The open points in time of this process, with their ends."""

    def __init__(self) -> None:
        self._open: dict[int, dict[str, float]] = {}
        self._numbers = itertools.count()

    async def open(self, index: Index, caller: Caller) -> str:
        """Open a point in time; return the sealed id.

        Raises:
            Problem: 429 if the environment has `MAX_POINTS` already, or all have `MAX_ALL_POINTS`.
            OpenSearchException: the index cannot answer.
        """
        now = time.monotonic()
        self._forget_ended(now)
        points = self._open.setdefault(caller.environment_id, {})
        if len(points) >= MAX_POINTS or sum(map(len, self._open.values())) >= MAX_ALL_POINTS:
            message = f"Maximum of points in time: {MAX_POINTS}, and {MAX_ALL_POINTS} of all environments. Delete one"
            headers = {"Retry-After": str(max(1, int(min(points.values(), default=now) - now)))}
            status, code = HTTPStatus.TOO_MANY_REQUESTS, ErrorCode.TOO_MANY_CONCURRENT_REQUESTS
            raise Problem(status, TOO_MANY_REQUESTS, code=code, message=message, headers=headers)
        place = f"being opened {next(self._numbers)}"
        points[place] = now + KEEP_SECONDS
        try:
            pit = await open_point_in_time(index, KEEP_ALIVE)
        finally:
            del points[place]
        points[pit] = now + KEEP_SECONDS
        return caller.seal.seal("pit", pit.encode())

    def _forget_ended(self, now: float) -> None:
        for environment_id, points in list(self._open.items()):
            for pit in [pit for pit, until in points.items() if until < now]:
                del points[pit]
            if not points:
                del self._open[environment_id]

    async def close(self, index: Index, caller: Caller, pits: Sequence[str]) -> None:
        """Release points in time.

        Raises:
            OpenSearchException: the index cannot answer.
        """
        for pit in pits:
            self._open.get(caller.environment_id, {}).pop(pit, None)
        await close_points_in_time(index, pits)

    def renew(self, caller: Caller, pit: str) -> None:
        """Note the new end of a point in time after a search."""
        points = self._open.get(caller.environment_id, {})
        if pit in points:
            points[pit] = time.monotonic() + KEEP_SECONDS


def opened(seal: Seal, text: str) -> str | None:
    """Return the id in a sealed id; None for any other text."""
    try:
        return seal.open("pit", text).decode()
    except SealError:
        return None
