"""How current the index is, and waiting until it holds a change (contract.md §1 "Reading your own writes").

An outbox row exists exactly while its change may not be searchable, so the outbox alone is asked. However many wait,
one statement answers for all of them at each tick, and nobody holds a connection while waiting.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from infra import logs

log = structlog.get_logger()

TICK_SECONDS = 0.01
LONG_TICK_SECONDS = 0.05
"""Between checks once everyone has waited for a while: what takes long may take a little longer."""
PATIENCE_SECONDS = 0.5
LAG_SECONDS = 0.2
"""A lag that is not older is answered again."""
CHECK_SECONDS = 2.0

TOKEN = re.compile(r"1-([0-9]{1,19})")

# A change is in the index when it has no row any more, parked or not, and nothing earlier waits beside it: reading
# one's last write means reading those before it. What failed for its own sake holds up only those who wait for it; an
# import, which has a lane of its own, only its own tokens. A number not given out yet is of a database that was
# restored: what became of that write nobody knows.
REACHED = sa.text("""
    SELECT w.environment_id, w.xid FROM unnest(CAST(:environments AS int[]), CAST(:xids AS text[])) AS g (id, given)
    CROSS JOIN LATERAL (SELECT g.id AS environment_id, g.given AS xid, CAST(g.given AS xid8) AS token) w
    WHERE w.token < pg_snapshot_xmax(pg_current_snapshot())
        AND NOT EXISTS (SELECT FROM outbox o WHERE o.environment_id = w.environment_id
                        AND o.lane IN ('live', 'bulk') AND o.xid = w.token)
        AND NOT EXISTS (SELECT FROM outbox o WHERE o.environment_id = w.environment_id
                        AND o.lane = 'live' AND o.xid < w.token AND o.parked_at IS NULL AND o.attempts = 0)""")
OLDEST = sa.text("""
    SELECT e.id, coalesce(extract(epoch FROM clock_timestamp() - min(o.created_at)) * 1000, 0)::bigint
    FROM unnest(CAST(:environments AS int[])) AS e (id) LEFT JOIN LATERAL (
        SELECT head.created_at FROM unnest(ARRAY['live', 'bulk']) AS l (lane) CROSS JOIN LATERAL (
            SELECT created_at FROM outbox
            WHERE parked_at IS NULL AND lane = l.lane AND environment_id = e.id ORDER BY seq LIMIT 1) head
        UNION ALL
        (SELECT created_at FROM outbox
         WHERE parked_at IS NOT NULL AND environment_id = e.id ORDER BY created_at LIMIT 1)) o ON true
    GROUP BY e.id""")


class Mark(NamedTuple):
    """A write: its transaction's number, in one environment."""

    environment_id: int
    xid: str


class _Wait(msgspec.Struct, eq=False):
    reached: asyncio.Future[None]
    checked: asyncio.Future[None]
    waiters: int = 0


class _Lag(NamedTuple):
    milliseconds: int
    until: float


def token(xid: str) -> str:
    """What a client is given for a write; it says nothing to it."""
    return f"1-{xid}"


def xid_of(given: str) -> str:
    """The transaction's number in a token.

    Raises:
        ValueError: it is none.
    """
    if not (found := TOKEN.fullmatch(given)) or int(found[1]) >= 1 << 63:
        raise ValueError("Not a token that a write has answered")
    return found[1]


class Freshness:
    """Of all environments, for one process."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Prepare it; `engine` is its own, so that it waits for no request and no request for it."""
        self._engine = engine
        self._waits: dict[Mark, _Wait] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._youngest = 0.0
        self._lags: dict[int, _Lag] = {}
        self._asked: dict[int, asyncio.Future[int]] = {}
        self._measuring: asyncio.Task[None] | None = None

    async def reached(self, mark: Mark, seconds: float) -> bool:
        """Wait until a write is searchable, for so long at the most; tell whether it is. It is looked at least once."""
        loop = asyncio.get_running_loop()
        wait = self._waits.get(mark)
        if wait is None:
            wait = self._waits[mark] = _Wait(loop.create_future(), loop.create_future())
        wait.waiters += 1
        self._youngest = time.monotonic()
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick())
        try:
            await asyncio.wait([wait.reached], timeout=seconds)
            if not wait.checked.done():
                await asyncio.wait([wait.checked], timeout=CHECK_SECONDS)
            return wait.reached.done()
        finally:
            wait.waiters -= 1
            if not wait.waiters and self._waits.get(mark) is wait:
                del self._waits[mark]

    async def lag_ms(self, environment_id: int) -> int:
        """The age in milliseconds of the oldest change of an environment that may not be searchable; 0 if none is.

        As of at most `LAG_SECONDS` ago.

        Raises:
            SQLAlchemyError: the database does not tell.
        """
        known = self._lags.get(environment_id)
        if known and time.monotonic() < known.until:
            return known.milliseconds
        if environment_id not in self._asked:
            self._asked[environment_id] = asyncio.get_running_loop().create_future()
        answer = self._asked[environment_id]
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.create_task(self._measure())
        return await asyncio.shield(answer)

    async def close(self) -> None:
        for task in (self._ticker, self._measuring):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _tick(self) -> None:
        while self._waits:
            started = time.monotonic()
            marks = list(self._waits)
            found = await self._check(marks)
            for mark in marks:
                if not (wait := self._waits.get(mark)):
                    continue
                if mark in found:
                    del self._waits[mark]
                    wait.reached.set_result(None)
                if not wait.checked.done():
                    wait.checked.set_result(None)
            patient = started - self._youngest > PATIENCE_SECONDS
            pause = LONG_TICK_SECONDS if patient else TICK_SECONDS
            await asyncio.sleep(max(pause, time.monotonic() - started))

    async def _check(self, marks: Sequence[Mark]) -> set[Mark]:
        """Those of the writes that are searchable; none while the database does not tell."""
        environments, xids = ([mark[column] for mark in marks] for column in range(2))
        try:
            async with asyncio.timeout(CHECK_SECONDS), self._engine.connect() as connection:
                rows = await connection.execute(REACHED, {"environments": environments, "xids": xids})
                return {Mark(*row) for row in rows}
        except (SQLAlchemyError, TimeoutError) as error:
            log.warning("freshness_unknown", reason=logs.error_kind(error))
            return set()

    async def _measure(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            now = time.monotonic()
            self._lags = {number: lag for number, lag in self._lags.items() if lag.until > now}
            try:
                async with asyncio.timeout(CHECK_SECONDS), self._engine.connect() as connection:
                    rows = (await connection.execute(OLDEST, {"environments": list(asked)})).all()
            except (SQLAlchemyError, TimeoutError) as error:
                failure = error if isinstance(error, SQLAlchemyError) else sa.exc.TimeoutError("The database hangs")
                for answer in asked.values():
                    answer.set_exception(failure)
                    answer.exception()  # whoever asked may have gone
                continue
            for number, milliseconds in rows:
                self._lags[number] = _Lag(milliseconds, now + LAG_SECONDS)
                asked[number].set_result(milliseconds)
