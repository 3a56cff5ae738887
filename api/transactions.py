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

Concurrent writes of the same value wait for each other (`api/reserved_values.py`), so a change of stored rows finds the
value taken. A unique violation is still possible beside a write of many rows, or beside SQL, and is treated alike.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar, TypeVarTuple

import sqlalchemy as sa
import structlog
from litestar import Response
from psycopg import sql
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from api import consistency, idempotency
from api.answers import Answer
from api.auth import Caller, Requester
from api.budget import Budget
from api.errors import RETRY_AFTER_SECONDS, Problem, unavailable
from api.freshness import Freshness, TransactionId
from api.request import AnyRequest, request_id_of
from api.route_options import options_of
from api.wake_ups import WakeUp
from infra.database import driver
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

# A write of 10,000 rows may take longer than reads may take. The message puts a record of the transaction into the WAL,
# and tells the position: whatever is restored or promoted up to there knows the number of the transaction.
BEGIN = sql.SQL("""
    SELECT set_config('consumers.request_id', {request_id}, true), set_config('lock_timeout', {lock_timeout}, true),
        set_config('statement_timeout', '0', true), pg_current_xact_id()::text,
        (current_epoch(CAST({seen_epoch} AS uuid))).id::text, pg_logical_emit_message(true, 'consumers', '')::text""")
SETTLE_SECONDS = 5.0
"""How long to look for the stored answer after a COMMIT without an answer."""
SETTLE_PAUSE_SECONDS = 0.1
COMMIT_ATTEMPTS = 3
"""The maximum of attempts of a request with an idempotency key if COMMIT gets no answer."""
ENDED_BEFORE_COMMIT = "25P03"
"""The SQLSTATE of a session that the server ended while the transaction was idle, so before COMMIT arrived."""


async def begin(
    connection: AsyncConnection, request_id: str | None = None, seen_epoch: str | None = None
) -> TransactionId:
    """Begin the transaction of a write.

    Args:
        connection: without a transaction.
        request_id: of the request, for the changes of rows.
        seen_epoch: the last epoch that the process has seen.
    """
    values = {"request_id": request_id, "lock_timeout": LOCK_TIMEOUT, "seen_epoch": seen_epoch}
    literals = {name: sql.Literal(value) for name, value in values.items()}
    return TransactionId(*(await driver.begin(connection, BEGIN.format(**literals)))[-3:])


class CommitUnanswered(Exception):  # noqa: N818 (names what happened; the transaction may be committed)
    """The connection was lost at COMMIT: the transaction may be committed or not."""


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
        self._seen_epoch: str | None = None

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
            Problem: 503 if the database is down or overloaded, or if it is not known whether the transaction was
                committed; 429 if the environment has too many writes at a time. Every error of `work` is passed on,
                with nothing stored.
        """
        claim = await idempotency.claim_of(request, requester)
        async with self._place(request, requester):
            answer = await self._written(request_id_of(request), requester, claim, work, explain)
        return await self._committed(request, requester, answer)

    def _place(self, request: AnyRequest, requester: Requester) -> AbstractAsyncContextManager[None]:
        """Return the place that the write needs. A write of several rows waits for these in the database."""
        if row_id := next(iter(request.scope.get("path_params", {}).values()), None):
            return self._budget.row(requester, row_id)
        return self._budget.batch(requester) if options_of(request.route_handler).batch_key else nullcontext()

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
            except CommitUnanswered as error:
                log.warning("commit_unanswered", request_id=request_id, attempt=attempt, has_key=claim is not None)
                if claim is None or attempt >= COMMIT_ATTEMPTS:
                    raise _outcome_unknown() from error
                if answer := await self._settle(claim):
                    return answer
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
            transaction = await self._begin(connection, request_id)
            if claim and (replayed := await self._replayed(connection, claim, transaction)):
                return replayed
            if explain:
                await explain(connection)
            answer = await work(connection)
            if isinstance(requester, Caller):
                answer.transaction = transaction
            if claim:
                await idempotency.store(connection, claim, answer, self._max_stored_bytes)
            try:
                await connection.commit()
            except DBAPIError as error:
                if not error.connection_invalidated or _state_of(error) == ENDED_BEFORE_COMMIT:
                    raise
                raise CommitUnanswered from error
        return answer

    async def _begin(self, connection: AsyncConnection, request_id: str | None) -> TransactionId:
        transaction = await begin(connection, request_id, self._seen_epoch)
        self._seen_epoch = transaction.epoch
        return transaction

    async def _replayed(
        self, connection: AsyncConnection, claim: idempotency.Claim, transaction: TransactionId
    ) -> Answer | None:
        """Claim the key; return the stored answer, if any.

        The stored transaction is part of the present history, because the row with the answer is. So a transaction of
        an earlier epoch is named in the present epoch. A dump holds numbers of another server, which may be higher than
        all numbers of this server.
        """
        answer = await idempotency.take(connection, claim)
        if answer and answer.transaction and answer.transaction.epoch != transaction.epoch:
            xid = min(answer.transaction.xid, transaction.xid, key=int)
            answer.transaction = transaction._replace(xid=xid)
        return answer

    async def _settle(self, claim: idempotency.Claim) -> Answer | None:
        """Return the answer stored by the transaction with the lost COMMIT; None if nothing was committed.

        The query waits for the transaction, should it still run, because it holds the key. So without a stored answer
        the request can be repeated.

        Raises:
            Problem: 503 if the database does not answer in time; the write may or may not have been committed. 409 if
                the transaction still runs, or if its answer was not stored.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                while True:
                    with suppress(SQLAlchemyError):
                        return await self._stored_answer(claim)
                    await asyncio.sleep(SETTLE_PAUSE_SECONDS)
        raise _outcome_unknown()

    async def _stored_answer(self, claim: idempotency.Claim) -> Answer | None:
        async with self._budget.engine.connect() as connection:
            transaction = await self._begin(connection, None)
            answer = await self._replayed(connection, claim, transaction)
        if answer:
            del answer.headers[idempotency.REPLAYED]
        return answer

    async def _committed(self, request: AnyRequest, requester: Requester, answer: Answer) -> Response[Any]:
        """Add the token, and wake the indexer. With `Prefer: wait`, wait until the write is searchable."""
        if not isinstance(requester, Caller):
            return answer.response()
        if idempotency.REPLAYED not in answer.headers:
            self._wake_up(now=consistency.preferences_of(request).wait is not None)
        assert answer.transaction
        answer.headers[consistency.TOKEN] = consistency.encode_token(requester.seal, answer.transaction)
        answer.headers |= await consistency.wait_after_write(request, requester, self._freshness, answer.transaction)
        return answer.response()


def _outcome_unknown() -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Database unavailable",
        message="It is not known whether this request took effect, because the connection to the database was lost: "
        "repeat a request with an Idempotency-Key unchanged; without a key, read the object before you repeat it",
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
