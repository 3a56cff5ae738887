"""The API's connections: a closed connection is replaced before a request uses it."""

import asyncio

import pytest
import sqlalchemy as sa

from infra.database import engine
from infra.database.engine import open_async_engine
from infra.settings import load
from tests.database.conftest import Environment

BACKEND_PID = sa.text("SELECT pg_backend_pid()")


def pids_around_a_close(environment: Environment) -> tuple[int, int]:
    """Use a pool's only connection before and after the server closes it; return both backend pids."""

    async def use() -> tuple[int, int]:
        unused = {"REDIS_URL": "redis://unused", "OPENSEARCH_URL": "http://unused"}
        settings = load(unused | {"DATABASE_URL": environment.url, "DATABASE_POOL": "1"})
        opened = open_async_engine(settings)
        try:
            async with opened.connect() as connection:
                before = (await connection.execute(BACKEND_PID)).scalar_one()
            assert environment.value("SELECT pg_terminate_backend(%s, 5000)", before)
            async with opened.connect() as connection:
                return before, (await connection.execute(BACKEND_PID)).scalar_one()
        finally:
            await opened.dispose()

    return asyncio.run(use())


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
