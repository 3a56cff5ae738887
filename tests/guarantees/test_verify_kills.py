"""A run is resumed after its worker was killed, and covers each consumer once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import pytest
import sqlalchemy as sa

from infra.local.servers import LocalServers
from infra.operations.counters import totals
from infra.operations.reindex import ReindexScope, request_reindex
from infra.operations.verify import MAX_STORED_DIFFERENCES, Run, find_run, request_run
from tests.guarantees.index_comparison import assert_index_equals_database
from tests.indexer.conftest import Pipeline, new_pipeline
from tests.service import Service, new_database
from tests.waiting import wait_until

CONSUMERS = 20_000


@pytest.fixture
def unindexed(servers: LocalServers) -> Iterator[Pipeline]:
    """Consumers without documents and without outbox rows."""
    with new_database(servers) as database, new_pipeline(database) as pipeline:
        pipeline.run("INSERT INTO consumers (environment_id) SELECT :e FROM generate_series(1, :n)", n=CONSUMERS)
        pipeline.run("DELETE FROM outbox")
        yield pipeline


def read_run(pipeline: Pipeline, number: int) -> Run:
    with pipeline.database.engine.connect() as connection:
        run = find_run(connection, number)
    assert run
    return run


def is_taken(pipeline: Pipeline) -> bool:
    statement = "SELECT FROM verifications WHERE kind = 'verify' AND heartbeat_at IS NOT NULL AND compared > 0"
    return bool(pipeline.run(statement))


def test_killed_verify_resumes_and_finds_each_difference_once(unindexed: Pipeline, tmp_path: Path) -> None:
    service = Service(unindexed.database, tmp_path)
    with unindexed.database.engine.begin() as connection:
        number = request_run(connection, "verify")
    try:
        service.start("background")
        service.start("beat")
        wait_until(lambda: is_taken(unindexed), what="the first comparison")
        service.stop("background", signal.SIGKILL)
        assert not read_run(unindexed, number).is_over
        # Make the heartbeat half a minute older.
        unindexed.run("UPDATE verifications SET heartbeat_at = heartbeat_at - interval '31 seconds'")
        service.start("background")
        wait_until(lambda: read_run(unindexed, number).is_over, timeout=120, what="the run to end")
    finally:
        service.close()
    run = read_run(unindexed, number)
    assert (run.state, run.compared, run.causes) == ("done", CONSUMERS, {"missing": CONSUMERS})
    assert unindexed.run("SELECT count(*) FROM differences WHERE verification_id = :n", n=number) == [
        (MAX_STORED_DIFFERENCES,)
    ]


@contextmanager
def halted_at_half(pipeline: Pipeline) -> Iterator[Callable[[], object]]:
    """Halt a reindex at half of the consumers, inside a page; yield a function telling whether it halts."""
    statements = (
        """CREATE FUNCTION halt() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END $$""",
        f"""CREATE TRIGGER halt BEFORE UPDATE ON verifications FOR EACH ROW
            WHEN (NEW.compared > {CONSUMERS // 2}) EXECUTE FUNCTION halt()""",
    )
    with pipeline.database.engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    waits: LiteralString = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted"
    with pipeline.database.engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(42)"))
        yield lambda: pipeline.run(waits)


def test_killed_reindex_resumes_and_writes_each_consumer_once(unindexed: Pipeline, tmp_path: Path) -> None:
    service, workers = Service(unindexed.database, tmp_path), ("background", "beat")
    with unindexed.database.engine.begin() as connection:
        number = request_reindex(connection, ReindexScope(environment_id=unindexed.environment))
    try:
        with halted_at_half(unindexed) as is_there:
            for name in workers:
                service.start(name)
            wait_until(is_there, what="the middle of the run")
            # Either process may work on the run.
            for name in workers:
                service.stop(name, signal.SIGKILL)
        assert 0 < read_run(unindexed, number).compared < CONSUMERS
        # Make the heartbeat half a minute older.
        unindexed.run("UPDATE verifications SET heartbeat_at = heartbeat_at - interval '31 seconds'")
        for name in workers:
            service.start(name)
        wait_until(lambda: read_run(unindexed, number).is_over, timeout=120, what="the run to end")
        wait_until(lambda: not unindexed.waiting(), timeout=120, what="the index")
    finally:
        service.close()
    assert (read_run(unindexed, number).state, read_run(unindexed, number).compared) == ("done", CONSUMERS)
    with unindexed.database.engine.connect() as connection:
        assert {lane.lane: lane.changes for lane in totals(connection)} == {"live": 0, "bulk": CONSUMERS}
    assert_index_equals_database(unindexed.database)
