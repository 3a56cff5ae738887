"""One request, one transaction: begun, repeated, committed and settled here, and nowhere else."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

import sqlalchemy as sa
import structlog
from litestar import Request, Response
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api import consistency, idempotency
from api.answers import Answer
from api.auth import Caller
from api.errors import RETRY_AFTER_SECONDS, Problem, unavailable
from api.freshness import Freshness
from infra.queue import TaskQueue

log = structlog.get_logger()
Work: TypeAlias = Callable[[AsyncConnection], Awaitable[Answer]]


class Wake(Protocol):
    def __call__(self, *, now: bool = False) -> None: ...


UNIQUE_VIOLATION = "23505"
ATTEMPTS = {"40001": 3, "40P01": 3, UNIQUE_VIOLATION: 10}
"""How often work is done at the most, by what it fails with: serialization failure, deadlock; and a unique violation,
which the next attempt's own look-up puts into words, unless what was in the way has gone meanwhile."""

LOCK_TIMEOUT = "5s"
"""How long a write waits for another that is at the same rows."""

BEGIN = sa.text("""
    SELECT set_config('consumers.request_id', :request_id, true), set_config('lock_timeout', :lock_timeout, true),
           pg_current_xact_id()::text AS xid""")
STATUS = sa.text("SELECT pg_xact_status(CAST(:xid AS xid8))")
SETTLE_SECONDS = 2.0


class Transactions:
    """Runs the writes of requests."""

    def __init__(self, engine: AsyncEngine, wake: Wake, freshness: Freshness) -> None:
        self._engine, self._wake, self._freshness = engine, wake, freshness

    async def run(
        self, request: Request[Any, Any, Any], caller: Caller, work: Work, *, again: Work | None = None
    ) -> Response[Any]:
        """Do `work` in a transaction, commit it, and answer what it gave; wake the indexer. It may run several times.

        With an `Idempotency-Key`, the outcome is stored in the same transaction, or replayed. With `Prefer: wait`, the
        answer comes once it is searchable, or after that time.

        Args:
            request: whose id and `Idempotency-Key` count.
            caller: in whose environment.
            work: what to do. It may leave it to the database to find values that are taken.
            again: done instead once that failed; what is taken it puts into words.

        Raises:
            Problem: 503 if the database is away or overrun; whatever `work` raises, with nothing stored.
        """
        request_id = request.scope["state"]["request_id"]
        claim = await idempotency.claim_of(request, caller)
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._once(request_id, claim, work)
            except DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                if state not in ATTEMPTS:
                    raise
                if attempt >= ATTEMPTS[state]:
                    raise unavailable("Database") from error
                tell = log.debug if state == UNIQUE_VIOLATION else log.info
                tell("transaction_repeated", request_id=request_id, attempt=attempt, reason=type(error.orig).__name__)
                work = again or work
            else:
                return await self._told(request, caller, answer)

    async def _told(self, request: Request[Any, Any, Any], caller: Caller, answer: Answer) -> Response[Any]:
        """What the client hears of the index, once the transaction is over."""
        if idempotency.REPLAYED not in answer.headers:
            self._wake(now=consistency.preferences_of(request).wait is not None)
        xid = consistency.decode_token(answer.headers[consistency.TOKEN])
        answer.headers |= await consistency.wait_after_write(request, caller, self._freshness, xid)
        return answer.response()

    async def _once(self, request_id: str, claim: idempotency.Claim | None, work: Work) -> Answer:
        async with self._engine.connect() as connection:
            begun = await connection.execute(BEGIN, {"request_id": request_id, "lock_timeout": LOCK_TIMEOUT})
            xid = begun.one().xid
            if claim and (replayed := await idempotency.take(connection, claim)):
                return replayed
            answer = await work(connection)
            answer.headers[consistency.TOKEN] = consistency.encode_token(xid)
            if claim:
                await idempotency.store(connection, claim, answer)
            try:
                await connection.commit()
            except DBAPIError:
                await connection.invalidate()
                if not await self._was_committed(xid):
                    raise
        return answer

    async def _was_committed(self, xid: str) -> bool:
        """What became of a transaction whose COMMIT failed: the connection may have gone after it was done.

        Raises:
            Problem: 503 if the database cannot tell; the request may or may not have taken effect.
        """
        status: str | None = "in progress"
        with suppress(TimeoutError, SQLAlchemyError):
            async with asyncio.timeout(SETTLE_SECONDS), self._engine.connect() as connection:
                while status == "in progress":
                    status = (await connection.execute(STATUS, {"xid": xid})).scalar_one()
                    await asyncio.sleep(0.05)
        if status in {"committed", "aborted"}:
            return status == "committed"
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "Database unavailable",
            message="It is not known whether this took effect: retry with the same Idempotency-Key",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )


PACE_SECONDS = 0.08
"""Time between two wake-ups: changes that come meanwhile share the next, and one refresh of the index."""


class Waker:
    """Sends wake-ups from a thread of its own, so that no request waits for Redis; many become one."""

    def __init__(self, task_queue: TaskQueue) -> None:
        self._task_queue = task_queue
        self._wanted, self._urgent = threading.Event(), threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="nudge", daemon=True)
        self._thread.start()

    def wake(self, *, now: bool = False) -> None:
        """Send one soon; `now`: somebody waits for it."""
        if now:
            self._urgent.set()
        self._wanted.set()

    def close(self) -> None:
        self._closed = True
        self.wake(now=True)
        self._thread.join(timeout=1)
        self._task_queue.close()

    def _run(self) -> None:
        reached = True
        while self._wanted.wait() and not self._closed:
            self._urgent.clear()
            self._wanted.clear()
            if (now := self._task_queue.wake_drain()) != reached:
                reached = now
                log.warning("queue_reached" if reached else "queue_unreachable")
            self._urgent.wait(PACE_SECONDS)
