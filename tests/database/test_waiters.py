"""Many requests wait for the index at the cost of one (api.freshness)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from api import freshness as module
from api.freshness import LAGS, SEARCHABLE, Freshness, TransactionId, Write
from infra.database.engine import open_async_engine
from tests.service import Database
from tests.waiting import wait_until

WAITERS = 200
LONG = 30.0
INSERT = sa.text("""
    INSERT INTO outbox (environment_id, consumer_id, version, lane)
    VALUES (1, 'cons_00000000000000000000000000', :n, 'live') RETURNING xid::text""")


class Watched(NamedTuple):
    """A `Freshness` on an engine with a single connection, and its queries."""

    freshness: Freshness
    engine: AsyncEngine
    checked: list[int]
    """By check: the number of writes."""
    measured: list[int]
    """By measurement of lags: the number of environments."""

    async def wait_for_checks(self, number: int) -> None:
        """Wait for further checks."""
        until = len(self.checked) + number
        await asyncio.to_thread(wait_until, lambda: len(self.checked) >= until)


@asynccontextmanager
async def watched(database: Database) -> AsyncIterator[Watched]:
    engine = open_async_engine(msgspec.structs.replace(database.settings, database_pool=1))
    checked: list[int] = []
    measured: list[int] = []

    def count(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if "pg_snapshot_xmax" in statement:
            checked.append(len(parameters["xids"]))
        elif "created_at" in statement:
            measured.append(len(parameters["environments"]))

    # The words identify the statements.
    assert "pg_snapshot_xmax" in SEARCHABLE.text
    assert "created_at" in LAGS.text
    sa.event.listen(engine.sync_engine, "before_cursor_execute", count)
    freshness = Freshness(engine)
    try:
        yield Watched(freshness, engine, checked, measured)
    finally:
        await freshness.close()
        # SQLAlchemy identifies listener and engine by id(), which later objects may reuse.
        sa.event.remove(engine.sync_engine, "before_cursor_execute", count)
        await engine.dispose()


def waiting_changes(database: Database, number: int) -> list[Write]:
    """Append outbox rows in separate transactions."""
    writes = []
    with database.engine.connect() as connection:
        for version in range(1, number + 1):
            xid = connection.execute(INSERT, {"n": version}).scalar_one()
            writes.append(Write(1, TransactionId(xid)))
            connection.commit()
    return writes


def delete_outbox_rows(database: Database, condition: str = "true") -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM outbox WHERE {condition}"))


def test_all_waiting_requests_share_one_statement_per_tick(quiet: Database) -> None:
    writes = waiting_changes(quiet, WAITERS)

    async def wait() -> None:
        async with watched(quiet) as own:
            waiters = [asyncio.create_task(own.freshness.wait_until_searchable(write, LONG)) for write in writes]
            await own.wait_for_checks(10)
            assert set(own.checked) == {WAITERS}
            # Requests waiting for the same write share a check.
            waiters += [asyncio.create_task(own.freshness.wait_until_searchable(write, LONG)) for write in writes]
            await own.wait_for_checks(10)
            assert set(own.checked) == {WAITERS}
            # Only the first write is in the index: later writes wait, because a token covers all earlier writes.
            await asyncio.to_thread(delete_outbox_rows, quiet, "version < 2")
            assert await waiters[0]
            assert not any(waiter.done() for waiter in waiters[1:WAITERS])
            await asyncio.to_thread(delete_outbox_rows, quiet)
            assert all(await asyncio.gather(*waiters))

    asyncio.run(wait())


def test_announced_round_and_new_request_are_checked_at_once(quiet: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONG_TICK_SECONDS", 2 * LONG)
    searchable, pending = waiting_changes(quiet, 2)

    async def wait() -> None:
        async with watched(quiet) as own:
            own.freshness.hears_rounds = True
            waiter = asyncio.create_task(own.freshness.wait_until_searchable(pending, 2 * LONG, is_new=True))
            await own.wait_for_checks(1)
            await asyncio.to_thread(delete_outbox_rows, quiet, "version < 2")
            async with asyncio.timeout(LONG):
                assert await own.freshness.wait_until_searchable(searchable, 2 * LONG)
            assert not waiter.done()
            await asyncio.to_thread(delete_outbox_rows, quiet)
            own.freshness.check_soon()
            async with asyncio.timeout(LONG):
                assert await waiter

    asyncio.run(wait())


def test_waiting_request_holds_no_connection(quiet: Database) -> None:
    writes = waiting_changes(quiet, WAITERS)

    async def wait() -> None:
        async with watched(quiet) as own:
            waiters = [asyncio.create_task(own.freshness.wait_until_searchable(write, LONG)) for write in writes]
            await own.wait_for_checks(1)
            for number in range(100):
                async with own.engine.connect() as connection:
                    assert (await connection.execute(sa.text("SELECT :n"), {"n": number})).scalar_one() == number
            assert not any(waiter.done() for waiter in waiters)
            await asyncio.to_thread(delete_outbox_rows, quiet)
            assert all(await asyncio.gather(*waiters))

    asyncio.run(wait())


def test_stopping_process_answers_waiting_requests(quiet: Database) -> None:
    [pending, searchable] = waiting_changes(quiet, 2)

    async def wait() -> None:
        async with watched(quiet) as own:
            waiter = asyncio.create_task(own.freshness.wait_until_searchable(pending, LONG))
            await own.wait_for_checks(1)
            own.freshness.stop_waiting()
            async with asyncio.timeout(LONG / 2):
                assert not await waiter
                assert not await own.freshness.wait_until_searchable(pending, LONG)
            await asyncio.to_thread(delete_outbox_rows, quiet)
            assert await own.freshness.wait_until_searchable(searchable, LONG)

    asyncio.run(wait())


def test_cancelled_wait_is_not_checked_any_more(quiet: Database) -> None:
    [patient, impatient, gone] = waiting_changes(quiet, 3)

    async def wait() -> None:
        async with watched(quiet) as own:
            waiters = [
                asyncio.create_task(own.freshness.wait_until_searchable(write, LONG)) for write in (patient, gone)
            ]
            assert not await own.freshness.wait_until_searchable(impatient, 0)
            waiters.pop().cancel()
            await own.wait_for_checks(2)
            assert own.checked[-1] == 1
            waiters[0].cancel()
            await asyncio.gather(*waiters, return_exceptions=True)
            # Without waiting requests there are no checks until the next request.
            await asyncio.to_thread(delete_outbox_rows, quiet)
            assert await own.freshness.wait_until_searchable(impatient, 0)

    asyncio.run(wait())


def test_lag_is_measured_once_for_concurrent_requests(quiet: Database) -> None:
    waiting_changes(quiet, 1)

    async def measure() -> None:
        async with watched(quiet) as own:
            lags = await asyncio.gather(*(own.freshness.lag(number % 2 + 1) for number in range(WAITERS)))
            assert len(own.measured) <= 2
            assert len(set(lags)) <= 2
            assert min(lags) == (0, False)

    asyncio.run(measure())
