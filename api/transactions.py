"""Transactions of requests. Each writing request has a single transaction, begun, retried and committed here.

A write that creates rows inserts first, and explains a conflict later (a change of stored rows looks first):
1. A body without schema faults is inserted at once. Nothing looks for taken values beforehand: most requests have
   none, and only a unique index sees the uncommitted value of a concurrent request.
2. The insert skips rows with taken values (`ON CONFLICT DO NOTHING`), because PostgreSQL writes every failed statement
   to its log. If a row was skipped, the write raises `ValueTaken`, and the transaction is rolled back.
3. The next attempt runs `explain` before the write: a query finds every taken value, and the response is a 400 with all
   of these values. A body with schema faults is never inserted: the write begins with the same query, so the 400 names
   the schema faults and the taken values together.
4. The query may find nothing, because the conflicting row has been deleted meanwhile. Then the write is tried again.

Two concurrent changes of stored rows to the same value still end in a unique violation, which is treated alike.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar, TypeVarTuple

import sqlalchemy as sa
import structlog
from litestar import Response
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from api import consistency, idempotency
from api.answers import Answer
from api.auth import Caller, Requester
from api.budget import Budget
from api.errors import RETRY_AFTER_SECONDS, Problem, unavailable
from api.freshness import Freshness
from api.request import AnyRequest, request_id_of
from api.wake_ups import WakeUp
from infra.logs import error_kind

log = structlog.get_logger()

Args = TypeVarTuple("Args")
Result = TypeVar("Result")
Work: TypeAlias = Callable[[AsyncConnection], Awaitable[Answer]]
Explain: TypeAlias = Callable[[AsyncConnection], Awaitable[None]]


UNIQUE_VIOLATION = "23505"
ATTEMPTS = {"40001": 3, "40P01": 3, UNIQUE_VIOLATION: 10}
"""The maximum of attempts by the SQLSTATE of the failure: serialization failure, deadlock, unique violation.
`ValueTaken` counts as a unique violation."""

LOCK_TIMEOUT = "5s"
"""How long a write waits for a concurrent write of the same rows."""

BEGIN = sa.text("""
    SELECT set_config('consumers.request_id', :request_id, true), set_config('lock_timeout', :lock_timeout, true),
           pg_current_xact_id()::text AS xid""")
STATUS = sa.text("SELECT pg_xact_status(CAST(:xid AS xid8))")
STATUS_SECONDS = 2.0
"""How long to ask for the outcome of a transaction after a failed COMMIT."""


class ValueTaken(Exception):  # noqa: N818 (a state of the stored rows, explained by the next attempt)
    """An insert skipped a row, because a unique value of the row is taken."""


class Transactions:
    """Runs the writes of requests, each in a transaction. A single instance per process."""

    def __init__(self, budget: Budget, wake_up: WakeUp, freshness: Freshness, *, max_stored_bytes: int = 0) -> None:
        """Take the resources.

        Args:
            budget: of each environment, with the connections for the transactions.
            wake_up: tells the indexer about new changes.
            freshness: waits until a write is searchable.
            max_stored_bytes: of the answers stored under idempotency keys, per environment and day; 0: unlimited.
        """
        self._budget, self._wake_up, self._freshness = budget, wake_up, freshness
        self._max_stored_bytes = max_stored_bytes

    async def run(
        self, request: AnyRequest, requester: Requester, work: Work, *, explain: Explain | None = None
    ) -> Response[Any]:
        """Run `work` in a transaction, commit, wake the indexer, and return the answer made by `work`.

        With an `Idempotency-Key`, the answer is stored in the same transaction; an answer stored earlier is returned
        instead. A merchant's write gets a consistency token; with `Prefer: wait`, the response is sent once the write
        is searchable, or after the wait.

        Args:
            request: of the client.
            requester: of the request. An operator's write changes no consumer, so there is nothing to wait for.
            work: the write. May run several times.
            explain: runs before `work` once the write met a taken value; raises the 400.

        Raises:
            Problem: 503 if the database is down or overloaded; 429 if the environment has too many writes at a time.
                Every error of `work` is passed on, with nothing stored.
        """
        claim = await idempotency.claim_of(request, requester)
        row_id = next(iter(request.scope.get("path_params", {}).values()), None)
        async with self._budget.row(requester, row_id):
            answer = await self._written(request_id_of(request), requester, claim, work, explain)
        return await self._committed(request, requester, answer)

    async def _written(
        self,
        request_id: str | None,
        requester: Requester,
        claim: idempotency.Claim | None,
        work: Work,
        explain: Explain | None,
    ) -> Answer:
        """Run and commit the transaction, in as many attempts as conflicts with concurrent writes need."""
        explain_first: Explain | None = None
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._attempt(request_id, requester, claim, work, explain_first)
            except (DBAPIError, ValueTaken) as error:
                state = _state_of(error)
                if state not in ATTEMPTS:
                    raise
                if attempt >= ATTEMPTS[state]:
                    raise unavailable("Database") from error
                write_line = log.debug if state == UNIQUE_VIOLATION else log.info
                reason = error_kind(error)
                write_line("transaction_retried", request_id=request_id, attempt=attempt, reason=reason)
                if state == UNIQUE_VIOLATION:
                    explain_first = explain

    async def _attempt(
        self,
        request_id: str | None,
        requester: Requester,
        claim: idempotency.Claim | None,
        work: Work,
        explain: Explain | None,
    ) -> Answer:
        async with self._budget.connection(requester) as connection:
            begun = await connection.execute(BEGIN, {"request_id": request_id, "lock_timeout": LOCK_TIMEOUT})
            xid = begun.one().xid
            if claim and (replayed := await idempotency.take(connection, claim)):
                return replayed
            if explain:
                await explain(connection)
            answer = await work(connection)
            if isinstance(requester, Caller):
                answer.xid = xid
            if claim:
                await idempotency.store(connection, claim, answer, self._max_stored_bytes)
            try:
                await connection.commit()
            except DBAPIError:
                await connection.invalidate()
                if not await self._was_committed(xid):
                    raise
        return answer

    async def _committed(self, request: AnyRequest, requester: Requester, answer: Answer) -> Response[Any]:
        """Add the token, and wake the indexer. With `Prefer: wait`, wait until the write is searchable."""
        if not isinstance(requester, Caller):
            return answer.response()
        if idempotency.REPLAYED not in answer.headers:
            self._wake_up(now=consistency.preferences_of(request).wait is not None)
        assert answer.xid
        answer.headers[consistency.TOKEN] = consistency.encode_token(requester.seal, answer.xid)
        answer.headers |= await consistency.wait_after_write(request, requester, self._freshness, answer.xid)
        return answer.response()

    async def _was_committed(self, xid: str) -> bool:
        """Return the outcome of a transaction after a failed COMMIT: the connection may have broken after the commit.

        Raises:
            Problem: 503 if the database does not answer; the write may or may not have been committed.
        """
        status: str | None = "in progress"
        with suppress(TimeoutError, SQLAlchemyError):
            async with asyncio.timeout(STATUS_SECONDS), self._budget.engine.connect() as connection:
                while status == "in progress":
                    status = (await connection.execute(STATUS, {"xid": xid})).scalar_one()
                    await asyncio.sleep(0.05)
        if status in {"committed", "aborted"}:
            return status == "committed"
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "Database unavailable",
            message="The outcome of this request is unknown: retry with the same Idempotency-Key",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )


def _state_of(error: DBAPIError | ValueTaken) -> str | None:
    return UNIQUE_VIOLATION if isinstance(error, ValueTaken) else getattr(error.orig, "sqlstate", None)


class Transaction:
    """The transaction of a request, as a dependency of the writing handlers."""

    def __init__(self, transactions: Transactions, request: AnyRequest, requester: Requester) -> None:
        self._transactions, self._request, self._requester = transactions, request, requester

    async def run(
        self,
        work: Callable[[AsyncConnection, *Args], Awaitable[Result]],
        *args: *Args,
        render: Callable[[Result], Answer],
        explain: Callable[[AsyncConnection, *Args], Awaitable[None]] | None = None,
    ) -> Response[Any]:
        """Run `work(connection, *args)` in the transaction, and answer with the rendered result.

        `explain(connection, *args)` raises the 400 after `ValueTaken`, as the module describes.

        Raises:
            Problem: as `Transactions.run`.
        """

        async def render_work(connection: AsyncConnection) -> Answer:
            return render(await work(connection, *args))

        async def explain_conflict(connection: AsyncConnection) -> None:
            if explain:
                await explain(connection, *args)

        return await self._transactions.run(self._request, self._requester, render_work, explain=explain_conflict)

    async def run_sync(
        self, work: Callable[[sa.Connection, *Args], Result], *args: *Args, render: Callable[[Result], Answer]
    ) -> Response[Any]:
        """Do the same as `run`, for synchronous work: functions shared with the commands."""

        async def render_work(connection: AsyncConnection) -> Answer:
            return render(await connection.run_sync(work, *args))

        return await self._transactions.run(self._request, self._requester, render_work)
