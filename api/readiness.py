"""The readiness of a process: whether it can write to PostgreSQL, and whether OpenSearch and Redis answer.

A task for each dependency checks it once a second. A request is answered from the last results, so it waits for no
server. A check that hangs is not cancelled, because a cancelled query waits for the server too. Its dependency counts
as unavailable as soon as the last success is too old.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
import structlog
from litestar.datastructures import State
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.index.naming import read_alias
from infra.logs import error_kind
from infra.operations.outbox import LIVE_LAG_MS

log = structlog.get_logger()

T = TypeVar("T")

CHECK_SECONDS = 1.0
FRESH_SECONDS = 3.0
"""A success counts for this long, from the start of its check."""

# As a write does: a number for the transaction, a record in the WAL, and a COMMIT that waits for the disk and for
# synchronous standbys. A read-only server fails.
WRITE = sa.text("""
    SELECT CASE current_setting('transaction_read_only') WHEN 'off'
        THEN pg_logical_emit_message(true, 'consumers', '') IS NOT NULL END""")
ANY_DOCUMENT: Mapping[str, Any] = {"size": 0, "track_total_hits": False, "terminate_after": 1}
ALL_SHARDS = {"allow_partial_search_results": "false", "request_timeout": FRESH_SECONDS}


class Check(Generic[T]):
    """The latest result of a check."""

    def __init__(self, run: Callable[[], Awaitable[T]], clock: Callable[[], float] = time.monotonic) -> None:
        """Take the check: a function that returns a value, or raises."""
        self._run, self._clock = run, clock
        self._value: T | None = None
        self._began_at = 0.0
        self.has_ended = asyncio.Event()
        """Whether the check has ended once, with or without success."""

    @property
    def value(self) -> T | None:
        """The value of the last check; None if the check failed, or if the last success is too old."""
        return self._value if self._clock() - self._began_at <= FRESH_SECONDS else None

    async def run(self) -> None:
        """Check once."""
        began_at = self._clock()
        try:
            value = await self._run()
        except Exception as error:  # noqa: BLE001 (whatever prevents the check prevents requests too)
            log.debug("check_failed", reason=error_kind(error))
            self._value = None
        else:
            self._value, self._began_at = value, began_at
        self.has_ended.set()

    async def run_regularly(self) -> None:
        while True:
            next_at = self._clock() + CHECK_SECONDS
            await self.run()
            await asyncio.sleep(max(0.0, next_at - self._clock()))


class Readiness:
    """The checks of a process. A single instance in each process."""

    def __init__(self, state: State, engine: AsyncEngine, watching: AsyncEngine) -> None:
        """Take the resources.

        Args:
            state: with the clients of the requests.
            engine: with a connection for nothing else, so that a write is tried each second.
            watching: connections for scans of the outbox.
        """
        self._state, self._engine, self._watching = state, engine, watching
        self.is_stopping = False
        """Whether the process ends soon: it serves requests, and should get no further ones."""
        self._dependencies: dict[str, Check[bool]] = {
            "database": Check(self._write),
            "search": Check(self._search),
            "queue": Check(self._ping),
        }
        self._lag = Check(self._measure_lag)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the checks, and wait up to a second for the first results."""
        checks: list[Check[bool] | Check[int]] = [*self._dependencies.values(), self._lag]
        self._tasks = [asyncio.create_task(check.run_regularly()) for check in checks]
        firsts = [asyncio.create_task(check.has_ended.wait()) for check in checks]
        _, late = await asyncio.wait(firsts, timeout=CHECK_SECONDS)
        for first in late:
            first.cancel()
        self._tasks.append(asyncio.create_task(self._report_changes()))

    def is_up(self, dependency: str) -> bool:
        return bool(self._dependencies[dependency].value)

    @property
    def lag_ms(self) -> int | None:
        """Age of the oldest live change of all environments that is not searchable; None if unknown."""
        return self._lag.value

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=CHECK_SECONDS)

    async def _report_changes(self) -> None:
        """Log each change of a dependency."""
        up = dict.fromkeys(self._dependencies, True)
        while True:
            for dependency, was_up in up.items():
                if (is_up := self.is_up(dependency)) != was_up:
                    log.warning("dependency_recovered" if is_up else "dependency_unavailable", dependency=dependency)
                    up[dependency] = is_up
            await asyncio.sleep(CHECK_SECONDS)

    async def _write(self) -> bool:
        async with self._engine.begin() as connection:
            return bool((await connection.execute(WRITE)).scalar_one())

    async def _search(self) -> bool:
        """Search as a list does: a closed index and a missing shard fail."""
        alias = read_alias(self._state.settings.index_prefix)
        await self._state.search.search(index=alias, body=ANY_DOCUMENT, params=ALL_SHARDS)
        return not self._state.index_owner.is_foreign

    async def _ping(self) -> bool:
        return bool(await self._state.redis.ping())

    async def _measure_lag(self) -> int:
        async with self._watching.connect() as connection:
            return int((await connection.execute(LIVE_LAG_MS)).scalar_one())
