"""The API's connections: one that the server closed is replaced before a request meets it."""

import asyncio

import pytest
import sqlalchemy as sa

from infra.database import engine
from infra.database.engine import open_async_engine
from infra.settings import load
from tests.database.conftest import Environment

WHO = sa.text("SELECT pg_backend_pid()")


def closed_while_it_rested(environment: Environment) -> tuple[int, int]:
    """Use the only connection of a pool before and after the server closes it; by which of its processes."""

    async def use() -> tuple[int, int]:
        unused = {"REDIS_URL": "redis://unused", "OPENSEARCH_URL": "http://unused"}
        settings = load(unused | {"DATABASE_URL": environment.url, "DATABASE_POOL": "1"})
        opened = open_async_engine(settings)
        try:
            async with opened.connect() as connection:
                before = (await connection.execute(WHO)).scalar_one()
            assert environment.value("SELECT pg_terminate_backend(%s, 5000)", before)
            async with opened.connect() as connection:
                return before, (await connection.execute(WHO)).scalar_one()
        finally:
            await opened.dispose()

    return asyncio.run(use())


def test_a_connection_that_the_server_closed_is_replaced(environment: Environment) -> None:
    before, after = closed_while_it_rested(environment)
    assert before != after


def test_a_connection_that_rested_is_replaced_if_it_is_dead_without_a_word(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TRUSTED_SECONDS", 0)
    monkeypatch.setattr(engine, "has_unread_data", lambda _: False)
    before, after = closed_while_it_rested(environment)
    assert before != after
