"""The API's connections: a closed connection is replaced before a request uses it."""

import asyncio
from typing import LiteralString

import pytest
import sqlalchemy as sa
from psycopg import sql

from api.transactions import BEGIN, LOCK_TIMEOUT
from infra.database import engine
from infra.database.engine import open_async_engine
from infra.settings import Settings, load
from tests.database.conftest import Environment

BACKEND_PID = sa.text("SELECT pg_backend_pid()")


NOT_WRITABLE: LiteralString = "ALTER DATABASE {} SET default_transaction_read_only = on"
WRITABLE: LiteralString = "ALTER DATABASE {} RESET default_transaction_read_only"


def settings_of(environment: Environment) -> Settings:
    unused = {"REDIS_URL": "redis://unused", "OPENSEARCH_URL": "http://unused"}
    return load(unused | {"DATABASE_URL": environment.url, "DATABASE_POOL": "1"})


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


def test_connection_to_a_read_only_server_is_replaced(environment: Environment) -> None:
    """The database is read-only for sessions of before, as after a change of the primary."""

    async def statuses() -> list[str]:
        opened = open_async_engine(settings_of(environment))
        outcomes = []
        try:
            for _ in range(3):
                try:
                    async with opened.begin() as connection:
                        await connection.execute(sa.text("UPDATE environments SET mode = mode"))
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
    assert "statement_timeout" in engine.REQUESTS
    monkeypatch.setitem(engine.REQUESTS, "statement_timeout", "500ms")
    values = {"request_id": None, "lock_timeout": LOCK_TIMEOUT, "seen_epoch": None}

    async def sleep(seconds: float, *, is_write: bool) -> None:
        opened = open_async_engine(settings_of(environment))
        try:
            async with opened.connect() as connection:
                if is_write:
                    await connection.execute(BEGIN, values)
                await connection.execute(sa.text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
        finally:
            await opened.dispose()

    asyncio.run(sleep(0.6, is_write=True))
    with pytest.raises(sa.exc.OperationalError, match="canceling statement due to statement timeout"):
        asyncio.run(sleep(30, is_write=False))
