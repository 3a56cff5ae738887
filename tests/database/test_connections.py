"""The API's connections: a closed connection is replaced before a request uses it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import LiteralString, TypeAlias

import pytest
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncConnection

from api.audiences.schemas import Members, MembersChanged
from api.audiences.writes import add_members, remove_members, replace_members
from api.auth import Caller, Keys
from api.seals import Seals
from api.transactions import begin
from infra.accounts.key_secrets import new_secret
from infra.database import driver, engine
from infra.database.engine import open_async_engine
from infra.settings import Settings, load
from tests.database.conftest import Environment
from tests.seals import fixed_seal

MembersChange: TypeAlias = Callable[[AsyncConnection, Caller, str, Members], Awaitable[MembersChanged]]

BACKEND_PID = sa.text("SELECT pg_backend_pid()")
RENAMED = sa.text("SELECT id FROM organizations WHERE starts_with(name, 'renamed ')")
UPDATE = sa.text("UPDATE environments SET mode = mode RETURNING id")


NOT_WRITABLE: LiteralString = "ALTER DATABASE {} SET default_transaction_read_only = on"
WRITABLE: LiteralString = "ALTER DATABASE {} RESET default_transaction_read_only"


def settings_of(environment: Environment) -> Settings:
    unused = {"REDIS_URL": "redis://unused", "OPENSEARCH_URL": "http://unused"}
    return load(unused | {"DATABASE_URL": environment.url, "DATABASE_POOL": "1"})


def caller_of(environment: Environment) -> Caller:
    return Caller(
        key_id="key",
        environment_id=environment.id,
        mode="live",
        organization_id="org",
        scopes=frozenset(),
        seal=fixed_seal(),
    )


def pids_around_a_close(environment: Environment) -> tuple[int, int]:
    """Use a pool's only connection before and after the server closes it; return both backend pids."""

    async def use() -> tuple[int, int]:
        opened = open_async_engine(settings_of(environment))
        try:
            async with opened.connect() as connection:
                before = (await connection.execute(BACKEND_PID)).scalar_one()
            assert environment.value("SELECT pg_terminate_backend(%s, 5000)", before)
            async with opened.connect() as connection:
                return before, (await connection.execute(BACKEND_PID)).scalar_one()
        finally:
            await opened.dispose()

    return asyncio.run(use())


async def update(connection: AsyncConnection) -> None:
    await connection.execute(UPDATE)


async def update_by_driver(connection: AsyncConnection) -> None:
    await driver.fetch_all(connection, UPDATE, {})


async def update_in_transaction(connection: AsyncConnection) -> None:
    await begin(connection)
    await update_by_driver(connection)


@pytest.mark.parametrize("write", [update, update_by_driver, update_in_transaction])
def test_connection_to_a_read_only_server_is_replaced(
    environment: Environment, write: Callable[[AsyncConnection], Awaitable[object]]
) -> None:
    """The database is read-only for sessions of before, as after a change of the primary."""

    async def statuses() -> list[str]:
        opened = open_async_engine(settings_of(environment))
        outcomes = []
        try:
            for _ in range(3):
                try:
                    async with opened.connect() as connection:
                        await write(connection)
                    outcomes.append("written")
                except sa.exc.DBAPIError as error:
                    outcomes.append(str(getattr(error.orig, "sqlstate", None)))
                name = environment.value("SELECT current_database()")
                environment.connection.execute(sql.SQL(WRITABLE).format(sql.Identifier(name)))
        finally:
            await opened.dispose()
        return outcomes

    name = environment.value("SELECT current_database()")
    environment.connection.execute(sql.SQL(NOT_WRITABLE).format(sql.Identifier(name)))
    assert asyncio.run(statuses()) == ["25006", "written", "written"]


def test_statement_of_the_driver_on_a_lost_connection_fails_as_any_other(environment: Environment) -> None:
    async def use() -> None:
        opened = open_async_engine(settings_of(environment))
        try:
            async with opened.connect() as connection:
                [(before,)] = await driver.fetch_all(connection, BACKEND_PID, {})
                assert environment.value("SELECT pg_terminate_backend(%s, 5000)", before)
                with pytest.raises(sa.exc.OperationalError) as lost:
                    await driver.fetch_all(connection, BACKEND_PID, {})
                assert lost.value.connection_invalidated
            async with opened.connect() as connection:
                assert await driver.fetch_all(connection, BACKEND_PID, {}) != [(before,)]
        finally:
            await opened.dispose()

    asyncio.run(use())


def test_connection_of_a_cancelled_statement_is_not_used_again(environment: Environment) -> None:
    async def use() -> None:
        opened = open_async_engine(settings_of(environment))
        try:
            async with opened.connect() as connection:
                before = await driver.fetch_all(connection, BACKEND_PID, {})
                async with asyncio.timeout(None) as limit:
                    limit.reschedule(0)
                    with pytest.raises(asyncio.CancelledError):
                        await driver.fetch_all(connection, sa.text("SELECT pg_sleep(60)"), {})
            async with opened.connect() as connection:
                assert await driver.fetch_all(connection, BACKEND_PID, {}) != before
        finally:
            await opened.dispose()

    asyncio.run(use())


def test_transaction_without_commit_is_rolled_back(environment: Environment) -> None:
    async def use() -> list[tuple[object, ...]]:
        opened = open_async_engine(settings_of(environment))
        try:
            async with opened.connect() as connection:
                await begin(connection)
                await driver.fetch_all(
                    connection, sa.text("UPDATE organizations SET name = 'renamed ' || name RETURNING id"), {}
                )
            async with opened.connect() as connection:
                return await driver.fetch_all(connection, RENAMED, {})
        finally:
            await opened.dispose()

    assert asyncio.run(use()) == []


def test_connection_closed_by_the_server_is_replaced(environment: Environment) -> None:
    before, after = pids_around_a_close(environment)
    assert before != after


def test_idle_connection_that_died_silently_is_replaced(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TRUSTED_SECONDS", 0)
    monkeypatch.setattr(engine, "has_unread_data", lambda _: False)
    before, after = pids_around_a_close(environment)
    assert before != after


def test_read_that_takes_too_long_is_canceled_and_a_write_is_not(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.REQUESTS["statement_timeout"] == "10s"
    monkeypatch.setitem(engine.REQUESTS, "statement_timeout", "500ms")

    async def sleep(seconds: float, *, is_write: bool) -> None:
        opened = open_async_engine(settings_of(environment))
        try:
            async with opened.connect() as connection:
                if is_write:
                    await begin(connection)
                await connection.execute(sa.text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
        finally:
            await opened.dispose()

    asyncio.run(sleep(0.6, is_write=True))
    with pytest.raises(sa.exc.OperationalError, match="canceling statement due to statement timeout"):
        asyncio.run(sleep(30, is_write=False))


@pytest.mark.parametrize("change", [add_members, remove_members, replace_members])
def test_ids_of_members_are_sent_as_a_single_text(environment: Environment, change: MembersChange) -> None:
    """The driver escapes each element of a list: 10,000 ids would keep the event loop for 7 ms in each statement."""
    audience = environment.value(
        "INSERT INTO audiences (environment_id, name, type) VALUES (%s, 'list', 'SYNCED_LIST') RETURNING id",
        environment.id,
    )
    members = Members(consumer_ids=[environment.consumer(), environment.consumer()])
    sent: list[dict[str, object]] = []

    async def run() -> None:
        opened = open_async_engine(settings_of(environment))
        sa.event.listen(opened.sync_engine, "before_cursor_execute", lambda *call: sent.append(call[3]))
        try:
            async with opened.begin() as connection:
                await change(connection, caller_of(environment), audience, members)
        finally:
            await opened.dispose()

    asyncio.run(run())
    types = {type(parameters["ids"]) for parameters in sent if "ids" in parameters}
    assert types == {str}


def test_concurrent_requests_with_a_key_share_a_query(environment: Environment) -> None:
    """When a cached key expires, the requests of a burst must not use all connections to look it up again."""
    sent: list[str] = []

    async def find() -> set[object]:
        opened = open_async_engine(settings_of(environment))
        sa.event.listen(opened.sync_engine, "before_cursor_execute", lambda *call: sent.append(call[2]))
        try:
            keys = Keys(opened, Seals(opened))
            return set(await asyncio.gather(*(keys.find(secret) for _ in range(20))))
        finally:
            await opened.dispose()

    secret = new_secret("sk_live_")
    assert asyncio.run(find()) == {None}
    assert sum("api_keys" in statement for statement in sent) == 1
