"""A run goes on to its end, and has each consumer once, though its worker is killed in the middle."""

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
from tests.guarantees.index_comparison import assert_agreement
from tests.indexer.conftest import Pipeline, new_pipeline
from tests.service import Service, new_database
from tests.waiting import wait_until

CONSUMERS = 20_000


@pytest.fixture
def lost(servers: LocalServers) -> Iterator[Pipeline]:
    """Consumers none of which is in the index, or on its way there."""
    with new_database(servers) as database, new_pipeline(database) as pipeline:
        pipeline.run("INSERT INTO consumers (environment_id) SELECT :e FROM generate_series(1, :n)", n=CONSUMERS)
        pipeline.run("DELETE FROM outbox")
        yield pipeline


def seen(pipeline: Pipeline, number: int) -> Run:
    with pipeline.database.engine.connect() as connection:
        found = find_run(connection, number)
    assert found
    return found


def is_taken(pipeline: Pipeline) -> bool:
    statement = "SELECT FROM verifications WHERE kind = 'verify' AND heartbeat_at IS NOT NULL AND compared > 0"
    return bool(pipeline.run(statement))


def test_verify_whose_worker_is_killed_finds_each_difference_once(lost: Pipeline, tmp_path: Path) -> None:
    service = Service(lost.database, tmp_path)
    with lost.database.engine.begin() as connection:
        number = request_run(connection, "verify")
    try:
        service.start("background")
        service.start("beat")
        wait_until(lambda: is_taken(lost), what="a worker that compares")
        service.stop("background", signal.SIGKILL)
        assert not seen(lost, number).is_over
        # As if half a minute had gone.
        lost.run("UPDATE verifications SET heartbeat_at = heartbeat_at - interval '31 seconds'")
        service.start("background")
        wait_until(lambda: seen(lost, number).is_over, timeout=120, what="the run's end")
    finally:
        service.close()
    found = seen(lost, number)
    assert (found.state, found.compared, found.causes) == ("done", CONSUMERS, {"missing": CONSUMERS})
    assert lost.run("SELECT count(*) FROM differences WHERE verification_id = :n", n=number) == [
        (MAX_STORED_DIFFERENCES,)
    ]


@contextmanager
def halting(pipeline: Pipeline) -> Iterator[Callable[[], object]]:
    """A reindex comes no further than half; gives what tells that it is there, in the middle of a page."""
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


def test_reindex_whose_worker_is_killed_writes_each_consumer_once(lost: Pipeline, tmp_path: Path) -> None:
    service, workers = Service(lost.database, tmp_path), ("background", "beat")
    with lost.database.engine.begin() as connection:
        number = request_reindex(connection, ReindexScope(environment_id=lost.environment))
    try:
        with halting(lost) as is_there:
            for name in workers:
                service.start(name)
            wait_until(is_there, what="the middle of the run")
            # Whichever of them is at it.
            for name in workers:
                service.stop(name, signal.SIGKILL)
        assert 0 < seen(lost, number).compared < CONSUMERS
        # As if half a minute had gone.
        lost.run("UPDATE verifications SET heartbeat_at = heartbeat_at - interval '31 seconds'")
        for name in workers:
            service.start(name)
        wait_until(lambda: seen(lost, number).is_over, timeout=120, what="the run's end")
        wait_until(lambda: not lost.waiting(), timeout=120, what="the index")
    finally:
        service.close()
    assert (seen(lost, number).state, seen(lost, number).compared) == ("done", CONSUMERS)
    with lost.database.engine.connect() as connection:
        assert {lane.lane: lane.changes for lane in totals(connection)} == {"live": 0, "bulk": CONSUMERS}
    assert_agreement(lost.database)
