"""Freshness of the index: wait until a write is searchable, and measure the lag (contract.md §1).

An outbox row exists exactly while the change may not be searchable. So the outbox tells both, without OpenSearch:

1. A request registers a write, and sleeps without a database connection.
2. The ticker, a task of the process, checks all registered writes in a single statement: after each round of the drain
   (`api/rounds.py`), after a new request, and from time to time.
3. A write is searchable when the outbox has no rows left of the write, nor of earlier changes in the environment
   (`SEARCHABLE` has the exceptions).

`api/consistency.py` reads tokens and preferences from requests, and uses this module.
"""

import asyncio
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
from infra.database.floors import LANE_FLOORS, REFUSED, floor, rows_of_environment

log = structlog.get_logger()

TICK_SECONDS = 0.01
"""Pause between checks, unless a round is heard. A new request waits for its first check for at most as long."""
LONG_TICK_SECONDS = 0.05
"""Pause if rounds are heard, or if no request arrived for `PATIENCE_SECONDS`: a long wait may end a little later."""
PATIENCE_SECONDS = 0.5
LAG_SECONDS = 0.2
"""A measured lag is used again for this long."""
CHECK_SECONDS = 2.0
"""Time limit of a statement."""

# Conditions for a write to be searchable, in this order:
# 1. The write is part of the database's history: it is of the present epoch, or of an earlier epoch and before the
#    fork. The number of a lost transaction may belong to another transaction by now.
# 2. The transaction id was issued by this server.
# 3. The write has no outbox row, parked rows included.
# 4. No earlier change of the environment waits in lane live: a client that reads its last write must also read the
#    writes before. Parked and refused changes do not count, so a faulty document delays only its own token. Lane bulk
#    does not count, so an import delays only its own tokens.
#    The longest waiting change is enough: if an earlier write of the client waits, then the longest waiting change took
#    its `seq` before this earlier write did, so its transaction began before the client's last write.
SEARCHABLE = sa.text(f"""
    SELECT w.position FROM current_epoch() e
    CROSS JOIN unnest(CAST(:environments AS int[]), CAST(:xids AS xid8[]), CAST(:epochs AS uuid[]),
                      CAST(:lsns AS pg_lsn[])) WITH ORDINALITY AS w (environment_id, number, epoch, lsn, position)
    WHERE CASE WHEN w.epoch = e.id OR w.epoch IS NULL AND e.number = 1 THEN true
               ELSE survives(w.epoch, w.number, w.lsn) END
        AND w.number < pg_snapshot_xmax(pg_current_snapshot())
        AND (SELECT true FROM outbox o WHERE o.xid = w.number AND o.environment_id = w.environment_id LIMIT 1) IS NULL
        AND NOT EXISTS (SELECT FROM (
            SELECT xid FROM outbox
            WHERE attempts = 0 AND {rows_of_environment("w.environment_id", "'live'", floor("'live'"))}
            LIMIT 1) AS longest_waiting WHERE xid < w.number)""")
LAGS = sa.text(f"""
    SELECT e.id, coalesce(extract(epoch FROM clock_timestamp() - min(o.created_at)) * 1000, 0)::bigint,
        (SELECT EXISTS (SELECT FROM generations WHERE state = 'live' AND lost_at IS NOT NULL))
    FROM unnest(CAST(:environments AS int[])) AS e (id) LEFT JOIN LATERAL (
        SELECT head.created_at FROM ({LANE_FLOORS}) AS f CROSS JOIN LATERAL (
            SELECT created_at FROM outbox WHERE {rows_of_environment("e.id", "f.lane", "f.seq")} LIMIT 1) head
        UNION ALL
        (SELECT created_at FROM outbox
         WHERE {REFUSED} AND environment_id = e.id ORDER BY created_at LIMIT 1)) o ON true
    GROUP BY e.id""")


class TransactionId(NamedTuple):
    """A transaction, identified across restores and fail-overs of the database."""

    xid: str
    epoch: str | None = None
    """The id of the epoch. None: the release before made the token."""
    lsn: str | None = None
    """A position in the WAL: a record of the transaction ends here."""


class Write(NamedTuple):
    """A write, identified by the transaction."""

    environment_id: int
    transaction: TransactionId


class _Wait(msgspec.Struct, eq=False):
    """The requests waiting for a write."""

    searchable: asyncio.Future[None]
    checked: asyncio.Future[None]
    requests: int = 0


class Lag(NamedTuple):
    """How far the index is behind the database."""

    milliseconds: int
    """Age of the environment's oldest change that may not be searchable; 0 without one."""
    is_index_lost: bool
    """Whether the live index is lost, so that reads are answered from an incomplete index, if at all."""


class _Measured(NamedTuple):
    lag: Lag
    until: float


class Freshness:
    """Freshness of all environments. A process has a single instance."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Prepare the instance. `engine` must have no other user, so that no check waits for a request's statement."""
        self._engine = engine
        self._waits: dict[Write, _Wait] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._last_arrival = self._last_check = 0.0
        self._due = asyncio.Event()
        self.hears_rounds = False
        """Whether `check_soon` is called after each round of the drain."""
        self._lags: dict[int, _Measured] = {}
        self._lag_requests: dict[int, asyncio.Future[Lag]] = {}
        self._lag_measurement: asyncio.Task[None] | None = None
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait_until_searchable(self, write: Write, seconds: float, *, is_new: bool = False) -> bool:
        """Wait until a write is searchable, at most `seconds`; return whether that was reached. Check at least once.

        After `stop_waiting` the check is the end of the wait.

        Args:
            write: to wait for.
            seconds: longest wait.
            is_new: whether the write was committed just now. Then the first check can wait for the end of a round.
        """
        loop = asyncio.get_running_loop()
        wait = self._waits.get(write)
        if wait is None:
            wait = self._waits[write] = _Wait(loop.create_future(), loop.create_future())
            if not is_new:
                loop.call_later(max(0.0, self._last_check + TICK_SECONDS - time.monotonic()), self.check_soon)
        wait.requests += 1
        self._last_arrival = time.monotonic()
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick())
        try:
            ends: list[asyncio.Future[None]] = [wait.searchable, self._stopped]
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not wait.checked.done():
                await asyncio.wait([wait.checked], timeout=CHECK_SECONDS)
            return wait.searchable.done()
        finally:
            wait.requests -= 1
            if not wait.requests and self._waits.get(write) is wait:
                del self._waits[write]

    def known_lag(self, environment_id: int) -> Lag | None:
        """Return the lag of an environment, if it was measured within `LAG_SECONDS`."""
        measured = self._lags.get(environment_id)
        return measured.lag if measured and time.monotonic() < measured.until else None

    async def lag(self, environment_id: int) -> Lag:
        """Return how far the index is behind, for an environment.

        The value is at most `LAG_SECONDS` old.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        if lag := self.known_lag(environment_id):
            return lag
        if environment_id not in self._lag_requests:
            self._lag_requests[environment_id] = asyncio.get_running_loop().create_future()
        answer = self._lag_requests[environment_id]
        if self._lag_measurement is None or self._lag_measurement.done():
            self._lag_measurement = asyncio.create_task(self._measure())
        return await asyncio.shield(answer)

    def check_soon(self) -> None:
        """Have the registered writes checked at once."""
        self._due.set()

    def stop_waiting(self) -> None:
        """End all waits, because the process ends: the writes count as not searchable."""
        self._stopped.set_result(None)

    async def close(self) -> None:
        for task in (self._ticker, self._lag_measurement):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _tick(self) -> None:
        """Check all registered writes, again and again, until no request waits."""
        while self._waits:
            self._due.clear()
            self._last_check = started = time.monotonic()
            writes = list(self._waits)
            searchable = await self._searchable(writes)
            for write in writes:
                if not (wait := self._waits.get(write)):
                    continue
                if write in searchable:
                    del self._waits[write]
                    wait.searchable.set_result(None)
                if not wait.checked.done():
                    wait.checked.set_result(None)
            is_patient = self.hears_rounds or started - self._last_arrival > PATIENCE_SECONDS
            pause = LONG_TICK_SECONDS if is_patient else TICK_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause, time.monotonic() - started)):
                    await self._due.wait()

    async def _searchable(self, writes: Sequence[Write]) -> set[Write]:
        """Return the searchable writes; an empty set while the database does not answer."""
        transactions = [write.transaction for write in writes]
        values = {
            "environments": [write.environment_id for write in writes],
            "xids": [transaction.xid for transaction in transactions],
            "epochs": [transaction.epoch for transaction in transactions],
            "lsns": [transaction.lsn for transaction in transactions],
        }
        try:
            async with asyncio.timeout(CHECK_SECONDS), self._engine.begin() as connection:
                positions = (await connection.execute(SEARCHABLE, values)).scalars()
                return {writes[position - 1] for position in positions}
        except (SQLAlchemyError, TimeoutError) as error:
            log.warning("freshness_check_failed", reason=logs.error_kind(error))
            return set()

    async def _measure(self) -> None:
        """Answer all requests for a lag, including requests made during a measurement."""
        while self._lag_requests:
            requests, self._lag_requests = self._lag_requests, {}
            now = time.monotonic()
            self._lags = {number: measured for number, measured in self._lags.items() if measured.until > now}
            try:
                async with asyncio.timeout(CHECK_SECONDS), self._engine.connect() as connection:
                    rows = (await connection.execute(LAGS, {"environments": list(requests)})).all()
            except (SQLAlchemyError, TimeoutError) as error:
                failure = error if isinstance(error, SQLAlchemyError) else sa.exc.TimeoutError("No answer in time")
                for answer in requests.values():
                    answer.set_exception(failure)
                    answer.exception()  # marks the exception as retrieved, because the request may be cancelled
                continue
            for environment_id, *values in rows:
                lag = Lag(*values)
                self._lags[environment_id] = _Measured(lag, now + LAG_SECONDS)
                requests[environment_id].set_result(lag)
