"""Points in time of live questions: a client walks through the index of a single moment.

With the id of OpenSearch, a search would need no filter of the environment. So a client gets a sealed id, for the
environment of the key alone.
"""

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
MAX_POINTS = 2
"""Points in time of an environment that a process holds: each keeps files of the index."""


class Points:
    """The open points in time of this process, with their ends."""

    def __init__(self) -> None:
        self._open: dict[int, dict[str, float]] = {}

    async def open(self, index: Index, caller: Caller) -> str:
        """Open a point in time; return the sealed id.

        Raises:
            Problem: 429 if the environment has `MAX_POINTS` already.
            OpenSearchException: the index cannot answer.
        """
        now = time.monotonic()
        points = self._open.setdefault(caller.environment_id, {})
        for pit in [pit for pit, until in points.items() if until < now]:
            del points[pit]
        if len(points) >= MAX_POINTS:
            message = f"An environment has at most {MAX_POINTS} points in time: delete one"
            headers = {"Retry-After": str(max(1, int(min(points.values()) - now)))}
            status, code = HTTPStatus.TOO_MANY_REQUESTS, ErrorCode.TOO_MANY_CONCURRENT_REQUESTS
            raise Problem(status, TOO_MANY_REQUESTS, code=code, message=message, headers=headers)
        pit = await open_point_in_time(index, KEEP_ALIVE)
        points[pit] = now + KEEP_SECONDS
        return caller.seal.seal("pit", pit.encode())

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
