"""Connections of requests while PostgreSQL answers nothing: cut after a while, and only then."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from api.stalls import PATIENCE_SECONDS, Stalls
from infra.database.engine import sqlalchemy_url
from tests.database.conftest import Environment
from tests.waiting import wait_until

POOL = 2


class Server:
    """The state of the server as the readiness of a process sees it, and a clock."""

    def __init__(self) -> None:
        self.is_up, self.now = True, 0.0

    def later(self) -> None:
        self.now += PATIENCE_SECONDS


Work = Callable[[AsyncEngine, Stalls, Server], Awaitable[None]]


def run(environment: Environment, work: Work) -> None:
    async def with_engine() -> None:
        engine = create_async_engine(sqlalchemy_url(environment.url), pool_size=POOL, max_overflow=POOL)
        server = Server()
        try:
            await work(engine, Stalls(engine, lambda: server.is_up, lambda: server.now), server)
        finally:
            await engine.dispose()

    asyncio.run(with_engine())


@asynccontextmanager
async def hanging(
    environment: Environment, engine: AsyncEngine, number: int
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Requests whose statement gets no answer: it waits for a lock of another session."""

    async def wait() -> None:
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT pg_advisory_lock(7)"))

    with environment.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(7)")
        tasks = [asyncio.create_task(wait()) for _ in range(number)]
        waiting = "SELECT count(*) >= %s FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted"
        await asyncio.to_thread(wait_until, lambda: environment.value(waiting, number), what="the waiting requests")
        yield tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def count_done(tasks: list[asyncio.Task[None]]) -> int:
    return sum(task.done() for task in tasks)


async def all_lost(tasks: list[asyncio.Task[None]]) -> None:
    """Wait until all tasks have ended by the loss of their connections."""
    for task in tasks:
        with pytest.raises(DBAPIError) as lost:
            await asyncio.wait_for(task, 30)
        assert lost.value.connection_invalidated


def test_request_ends_if_the_server_answers_nothing(environment: Environment) -> None:
    async def work(engine: AsyncEngine, stalls: Stalls, server: Server) -> None:
        async with hanging(environment, engine, 1) as [request]:
            server.is_up = False
            stalls.check()
            assert not request.done(), "it has waited for no time"
            server.later()
            stalls.check()
            await all_lost([request])

    run(environment, work)


def test_slow_request_goes_on_while_the_server_answers_others(environment: Environment) -> None:
    async def work(engine: AsyncEngine, stalls: Stalls, server: Server) -> None:
        async with hanging(environment, engine, 1) as [request]:
            server.later()
            stalls.check()
            server.is_up = False
            server.now -= 1
            stalls.check()
            done, _ = await asyncio.wait([request], timeout=0)
            assert not done

    run(environment, work)


def test_connection_that_was_returned_is_not_cut(environment: Environment) -> None:
    async def work(engine: AsyncEngine, stalls: Stalls, server: Server) -> None:
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))
        server.later()
        server.is_up = False
        async with engine.connect() as connection:
            stalls.check()
            assert (await connection.execute(sa.text("SELECT 1"))).scalar_one() == 1

    run(environment, work)


def test_process_leaves_no_more_sessions_behind_than_its_pool_has(environment: Environment) -> None:
    async def work(engine: AsyncEngine, stalls: Stalls, server: Server) -> None:
        async with hanging(environment, engine, 2 * POOL) as requests:
            server.is_up = False
            server.later()
            stalls.check()
            stalls.check()
            await asyncio.to_thread(wait_until, lambda: count_done(requests) == POOL)
            server.is_up = True
            stalls.check()
            server.is_up = False
            stalls.check()
            await all_lost(requests)

    run(environment, work)
