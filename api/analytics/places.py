"""The places for live questions, of all processes of the API: one of an environment, and two of all.

The gates of a process (`api/budget.py`) admit the questions of this process one after the other. Their places in Redis
are locks that end by themselves, also if the process is killed. Without Redis, the gates of each process are all: a
question must not fail for it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from api.auth import Requester
from api.budget import QUESTION_WAIT_SECONDS, QUESTIONS, Budget, too_many
from infra.database.installation import InstallationMissing
from infra.queue import key_prefix
from infra.settings import Settings

log = structlog.get_logger()

HELD_SECONDS = 12.0
"""Longest time of a place: a question has 10 seconds."""
LOOK_SECONDS = 0.05
SKIP_SECONDS = 5.0
"""How long Redis is skipped after a failure."""
UNAVAILABLE = (RedisError, OSError, SQLAlchemyError, InstallationMissing)


class Places:
    """Holds places in Redis. `redis` is closed by its owner."""

    def __init__(self, settings: Settings, redis: Redis, budget: Budget) -> None:
        """Take the settings with the index prefix, a connection, and the gates of this process."""
        self._settings, self._redis, self._budget = settings, redis, budget
        self._prefix: str | None = None
        self._skip_until = 0.0

    @asynccontextmanager
    async def hold(self, requester: Requester) -> AsyncIterator[None]:
        """Hold a place of the process, and a place of all processes, while the context is open.

        While different environments are active, both stay taken for a while afterwards.

        Raises:
            Problem: 429 if no place is free in time.
        """
        async with self._budget.question(requester) as question:
            # The wait for the process's own places does not count: it may include the pause of the question before.
            locks = await self._take_both(requester.counted_as, time.monotonic() + QUESTION_WAIT_SECONDS)
            question.begin()
            try:
                yield
            finally:
                await self._leave(locks, question.pause())

    async def _take_both(self, key: str, until: float) -> list[Lock]:
        """Return the locks of a question; an empty list if Redis does not answer."""
        locks: list[Lock] = []
        if time.monotonic() < self._skip_until:
            return locks
        try:
            prefix = f"{await self._opened()}questions:"
            locks.append(await self._take([f"{prefix}of:{key}"], 1, "live questions of an environment", until))
            places = [f"{prefix}{number}" for number in range(QUESTIONS)]
            locks.append(await self._take(places, QUESTIONS, "live questions of all environments", until))
        except UNAVAILABLE as error:
            self._skip_until = time.monotonic() + SKIP_SECONDS
            log.warning("questions_counted_by_process", reason=type(error).__name__)
        except BaseException:
            await self._leave(locks, 0.0)
            raise
        return locks

    async def _take(self, names: Sequence[str], places: int, noun: str, until: float) -> Lock:
        """Take the first free lock.

        Raises:
            Problem: 429 if none is free in time.
            RedisError: Redis does not answer.
        """
        while True:
            for name in names:
                lock = self._redis.lock(name, timeout=HELD_SECONDS, thread_local=False)
                if await lock.acquire(blocking=False):
                    return lock
            if time.monotonic() >= until:
                raise too_many(noun, places)
            await asyncio.sleep(LOOK_SECONDS)

    async def _leave(self, locks: Sequence[Lock], pause: float) -> None:
        """Give the locks back, after a pause. A lock that cannot be given back ends by itself."""
        for lock in locks:
            try:
                if pause:
                    await lock.extend(pause, replace_ttl=True)
                else:
                    await lock.release()
            except UNAVAILABLE as error:
                log.warning("question_not_ended", reason=type(error).__name__)

    async def _opened(self) -> str:
        """Return the beginning of the keys of this installation.

        Raises:
            InstallationMissing, DBAPIError: see `installation.id_of`.
        """
        if self._prefix is None:
            self._prefix = await asyncio.to_thread(key_prefix, self._settings)
        return self._prefix
