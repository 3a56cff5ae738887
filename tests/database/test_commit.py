"""A request's transaction: success means committed, an error means nothing stored, an unknown outcome is reported."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
import sqlalchemy as sa
from litestar import Request
from litestar.datastructures import Headers
from psycopg import sql
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.util import await_only

from api import idempotency
from api.answers import Answer
from api.auth import Caller
from api.budget import Budget
from api.errors import Problem
from api.freshness import Freshness
from api.route_options import route_options
from api.transactions import ATTEMPTS, COMMIT_ATTEMPTS, Transactions
from infra.database.engine import has_unread_data, sqlalchemy_url
from tests.database.conftest import Environment
from tests.seals import fixed_seal
from tests.waiting import wait_until

REQUEST = cast(
    "Request[Any, Any, Any]",
    SimpleNamespace(
        method="PUT",
        scope={"state": {"request_id": "r1"}},
        headers=Headers(),
        route_handler=SimpleNamespace(opt=route_options("write:consumers", "writes")),
    ),
)


async def _body() -> bytes:
    return b"{}"


def keyed(key: str, method: str = "POST") -> Request[Any, Any, Any]:
    request = SimpleNamespace(
        method=method,
        scope=REQUEST.scope | {"path": "/consumers", "query_string": b""},
        headers=Headers({"idempotency-key": key}),
        url=SimpleNamespace(path="/consumers"),
        route_handler=REQUEST.route_handler,
        body=_body,
    )
    return cast("Request[Any, Any, Any]", request)


KEYED = keyed("k")


class Outcome(SimpleNamespace):
    woken: int
    attempts: int
    result: str | Exception


def write(
    environment: Environment,
    *interruptions: Callable[[AsyncConnection], Awaitable[object]],
    request: Request[Any, Any, Any] = REQUEST,
    max_stored_bytes: int = 0,
    lost_commits: Sequence[str] = (),
) -> Outcome:
    """Insert a consumer as a request does; the nth attempt is interrupted by the nth interruption, after the insert.

    The connection of the nth attempt is lost at COMMIT, before or after the transaction is committed, as the nth of
    `lost_commits` says. SQLAlchemy's own COMMIT follows, and finds the connection closed.
    """
    caller = Caller(
        key_id="key",
        environment_id=environment.id,
        mode="live",
        organization_id="org",
        scopes=frozenset(),
        seal=fixed_seal(),
    )
    outcome = Outcome(woken=0, attempts=0, result="")

    def wake(*, now: bool = False) -> None:
        assert not now
        outcome.woken += 1

    async def work(connection: AsyncConnection) -> Answer:
        insert = sa.text("INSERT INTO consumers (environment_id) VALUES (:e) RETURNING id")
        consumer = str((await connection.execute(insert, {"e": environment.id})).scalar_one())
        outcome.attempts += 1
        if outcome.attempts <= len(interruptions):
            await interruptions[outcome.attempts - 1](connection)
        return Answer(201, consumer.encode())

    moments = list(lost_commits)

    def lose_commit(connection: sa.Connection) -> None:
        if not moments:
            return
        driver = cast("psycopg.AsyncConnection[Any]", connection.connection.driver_connection)
        if moments.pop(0) == "after":
            await_only(driver.execute("COMMIT"))
            # Otherwise the driver knows that no transaction is open, and sends nothing.
            await_only(driver.close())
        else:
            assert environment.value("SELECT pg_terminate_backend(%s, 5000)", driver.info.backend_pid)

    async def run() -> str | Exception:
        engine = create_async_engine(sqlalchemy_url(environment.url), pool_size=2)
        sa.event.listen(engine.sync_engine, "commit", lose_commit)
        try:
            budget = Budget(engine, searches=1, connections=1)
            transactions = Transactions(budget, wake, Freshness(engine), max_stored_bytes=max_stored_bytes)
            answer = await transactions.run(request, caller, work)
            return bytes(answer.content).decode()
        except (Problem, DBAPIError) as error:
            return error
        finally:
            # SQLAlchemy identifies listener and engine by id(), which later objects may reuse.
            sa.event.remove(engine.sync_engine, "commit", lose_commit)
            await engine.dispose()

    outcome.result = asyncio.run(run())
    return outcome


def assert_unknown(outcome: Outcome) -> None:
    """Assert that the response is the 503 that says that the outcome is not known."""
    assert isinstance(outcome.result, Problem)
    assert outcome.result.status == 503
    assert "not known whether this request took effect" in (outcome.result.message or "")
    assert outcome.woken == 0


def stored_ids(environment: Environment) -> list[str]:
    return [row[0] for row in environment.rows("SELECT id FROM consumers WHERE environment_id = %s", environment.id)]


async def backend(connection: AsyncConnection) -> int:
    return int((await connection.execute(sa.text("SELECT pg_backend_pid()"))).scalar_one())


def kill_session(environment: Environment) -> Callable[[AsyncConnection], Awaitable[None]]:
    """Make the server end the session after the last statement and before COMMIT."""

    async def kill(connection: AsyncConnection) -> None:
        pid = await backend(connection)
        assert environment.value("SELECT pg_terminate_backend(%s, 5000)", pid)

    return kill


def fail_with(state: str) -> Callable[[AsyncConnection], Awaitable[None]]:
    async def fail(connection: AsyncConnection) -> None:
        await connection.execute(sa.text(f"DO $$ BEGIN RAISE EXCEPTION 'made' USING ERRCODE = '{state}'; END $$"))

    return fail


async def fail_at_commit(connection: AsyncConnection) -> None:
    """Violate a constraint that PostgreSQL checks only at the commit."""
    await connection.execute(sa.text("CREATE TABLE late (n int UNIQUE)"))
    await connection.execute(sa.text("CREATE TABLE later (n int REFERENCES late (n) DEFERRABLE INITIALLY DEFERRED)"))
    await connection.execute(sa.text("INSERT INTO later VALUES (1)"))


def test_commit_is_the_response_and_wakes_the_indexer(environment: Environment) -> None:
    outcome = write(environment)
    assert stored_ids(environment) == [outcome.result]
    assert environment.rows("SELECT request_id FROM outbox WHERE environment_id = %s", environment.id) == [("r1",)]
    assert outcome.woken == 1


def test_failed_commit_is_an_error_and_stores_nothing(environment: Environment) -> None:
    outcome = write(environment, fail_at_commit)
    assert isinstance(outcome.result, IntegrityError)
    assert (stored_ids(environment), environment.changes(), outcome.woken) == ([], [], 0)


def test_connection_lost_before_commit_stores_nothing(environment: Environment) -> None:
    """Without a key, nothing tells whether the transaction was committed."""
    outcome = write(environment, kill_session(environment))
    assert_unknown(outcome)
    assert (stored_ids(environment), environment.changes()) == ([], [])


def test_connection_lost_before_commit_repeats_a_write_with_a_key(environment: Environment) -> None:
    outcome = write(environment, request=KEYED, lost_commits=["before"])
    assert stored_ids(environment) == [outcome.result]
    assert (outcome.attempts, outcome.woken) == (2, 1)


def test_connection_always_lost_before_commit_is_reported_as_unknown(environment: Environment) -> None:
    outcome = write(environment, request=KEYED, lost_commits=["before"] * COMMIT_ATTEMPTS)
    assert_unknown(outcome)
    assert (stored_ids(environment), outcome.attempts) == ([], COMMIT_ATTEMPTS)


def test_session_ended_while_idle_is_an_error(environment: Environment) -> None:
    """The server rolled back before COMMIT arrived, and says so."""

    async def idle(connection: AsyncConnection) -> None:
        # Longer than this process takes to read the reply: together with the reply, the error would be read too early.
        await connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 500"))
        raw = await connection.get_raw_connection()
        driver = cast("psycopg.AsyncConnection[Any]", raw.driver_connection)
        await asyncio.to_thread(wait_until, lambda: has_unread_data(driver.fileno()))

    outcome = write(environment, idle)
    assert isinstance(outcome.result, DBAPIError)
    assert (stored_ids(environment), environment.changes(), outcome.woken) == ([], [], 0)


@pytest.mark.parametrize("request_", [KEYED, REQUEST], ids=["with key", "without key"])
def test_commit_without_reply_is_settled_by_the_stored_answer(
    environment: Environment, request_: Request[Any, Any, Any]
) -> None:
    outcome = write(environment, request=request_, lost_commits=["after"])
    stored = stored_ids(environment)
    assert (len(stored), outcome.attempts) == (1, 1)
    if request_ is KEYED:
        assert (stored, outcome.woken) == ([outcome.result], 1)
    else:
        assert_unknown(outcome)


def test_commit_of_unknown_outcome_is_reported_as_unknown(environment: Environment) -> None:
    """The database refuses new connections, so the outcome cannot be looked up."""

    address = sa.make_url(environment.url)
    elsewhere = address.set(database="postgres").render_as_string(hide_password=False)
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")

    async def kill_and_close(connection: AsyncConnection) -> None:
        pid = await backend(connection)
        closing.execute(allow.format(sql.Identifier(address.database or ""), sql.SQL("false")))
        assert environment.value("SELECT pg_terminate_backend(%s, 5000)", pid)

    with psycopg.connect(elsewhere, autocommit=True) as closing:
        try:
            outcome = write(environment, kill_and_close)
        finally:
            closing.execute(allow.format(sql.Identifier(address.database or ""), sql.SQL("true")))
    assert_unknown(outcome)
    assert isinstance(outcome.result, Problem)
    assert "Idempotency-Key" in (outcome.result.message or "")


@pytest.mark.parametrize(("state", "attempts"), ATTEMPTS.items())
def test_conflict_repeats_the_whole_transaction(environment: Environment, state: str, attempts: int) -> None:
    outcome = write(environment, *[fail_with(state)] * (attempts - 1))
    assert outcome.attempts == attempts
    assert stored_ids(environment) == [outcome.result]
    assert len(environment.changes()) == 1


@pytest.mark.parametrize(("state", "attempts"), ATTEMPTS.items())
def test_lasting_conflict_is_an_unavailable_database(environment: Environment, state: str, attempts: int) -> None:
    outcome = write(environment, *[fail_with(state)] * attempts)
    assert isinstance(outcome.result, Problem)
    assert (outcome.result.status, outcome.attempts) == (503, attempts)
    assert (stored_ids(environment), environment.changes(), outcome.woken) == ([], [], 0)


def test_other_errors_are_not_repeated(environment: Environment) -> None:
    outcome = write(environment, fail_with("22000"))
    assert isinstance(outcome.result, DBAPIError)
    assert (stored_ids(environment), outcome.attempts) == ([], 1)


def test_replay_neither_writes_nor_wakes(environment: Environment) -> None:
    first, again = (write(environment, request=KEYED) for _ in range(2))
    assert again.result == first.result
    assert (first.attempts, first.woken) == (1, 1)
    assert (again.attempts, again.woken) == (0, 0)
    assert stored_ids(environment) == [first.result]


@pytest.mark.parametrize("interruption", [fail_at_commit, fail_with("22000"), fail_with("40001")])
def test_failed_request_leaves_no_key(
    environment: Environment, interruption: Callable[[AsyncConnection], Awaitable[object]]
) -> None:
    outcome = write(environment, *[interruption] * ATTEMPTS["40001"], request=KEYED)
    assert isinstance(outcome.result, DBAPIError | Problem)
    assert environment.rows("SELECT FROM idempotency_keys WHERE environment_id = %s", environment.id) == []
    later = write(environment, request=KEYED)
    assert (stored_ids(environment), later.attempts) == ([later.result], 1)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_answers_beyond_the_bytes_of_a_day_are_not_repeated(environment: Environment, method: str) -> None:
    """Each answer is the id of a consumer, with 31 bytes."""
    for _ in range(2):
        first, second, third = (write(environment, request=keyed(key, method), max_stored_bytes=70) for key in "abc")
        assert len(stored_ids(environment)) == 3
    before = set(stored_ids(environment))
    assert {first.result, second.result} < before
    assert isinstance(third.result, Problem)
    assert (third.result.status, third.attempts, third.woken) == (409, 0, 0)
    assert "took effect" in (third.result.message or "")
    kept = environment.rows("SELECT octet_length(body) FROM idempotency_keys WHERE environment_id = %s", environment.id)
    assert sorted(kept) == [(0,), (31,), (31,)]
    assert (
        environment.value("SELECT sum(bytes) FROM idempotency_counts WHERE environment_id = %s", environment.id) == 62
    )
    environment.run("UPDATE idempotency_counts SET day = day - 1 WHERE environment_id = %s", environment.id)
    results = [write(environment, request=keyed("d"), max_stored_bytes=70).result for _ in range(2)]
    assert results == [*(set(stored_ids(environment)) - before)] * 2


def stored_under(environment: Environment, keys: Sequence[str], max_bytes: int = 0) -> list[int]:
    """Store an answer of three bytes under each key, all in a single session; return the statuses."""
    # All sessions count in the same rows, as the sessions of processes with equal numbers do.
    store = sa.text(idempotency.OF_ENVIRONMENT.store.text.replace(f"pg_backend_pid() % {idempotency.SESSIONS}", "7"))
    engine = sa.create_engine(sqlalchemy_url(environment.url))
    with engine.connect() as connection:
        for key in keys:
            values: dict[str, Any] = {"owner": environment.id, "key": key, "fingerprint": b""}
            assert connection.execute(idempotency.OF_ENVIRONMENT.claim, values).one()
            answer = {"status": 201, "headers": "{}", "body": b"abc", "consumer_ids": None, "epoch": None, "lsn": None}
            assert connection.execute(store, values | answer | {"max_bytes": max_bytes}).rowcount == 1
            connection.commit()
    engine.dispose()
    statuses = "SELECT status FROM idempotency_keys WHERE environment_id = %s AND key = ANY(%s) ORDER BY created_at"
    return [status for (status,) in environment.rows(statuses, environment.id, list(keys))]


COUNTS = """
    SELECT part, bytes_before, bytes, answers FROM idempotency_counts WHERE environment_id = %s ORDER BY part"""


def test_row_that_counts_stored_bytes_is_changed_a_few_times_only(environment: Environment) -> None:
    """A held snapshot keeps each version of a row, and each request would read all of them."""
    number = 2 * idempotency.ANSWERS_OF_A_ROW + 3
    keys = [f"key {each:03}" for each in range(number)]
    assert stored_under(environment, keys, max_bytes=3 * number) == [201] * number
    answers = idempotency.ANSWERS_OF_A_ROW
    rows = [(0, 0, 3 * answers, answers), (1, 3 * answers, 3 * answers, answers), (2, 6 * answers, 9, 3)]
    assert environment.rows(COUNTS, environment.id) == rows
    assert stored_under(environment, ["beyond"], max_bytes=3 * number + 2) == [409]
    assert stored_under(environment, ["within"], max_bytes=3 * number + 3) == [201]


def test_sessions_that_count_in_the_same_row_lose_no_byte(environment: Environment) -> None:
    keys = [[f"{client}/{number}" for number in range(50)] for client in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda own: stored_under(environment, own), keys))
    rows = environment.rows(COUNTS, environment.id)
    assert sum(answers for *_, answers in rows) == 200
    _, before, own, _ = rows[-1]
    assert before + own == 600
