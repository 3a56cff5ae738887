"""A verify goes on to its end, and counts each consumer once, though its worker is killed in the middle."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.servers import LocalServers
from infra.verifications import KEPT, Run, request, run
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
        found = run(connection, number)
    assert found
    return found


def is_taken(pipeline: Pipeline) -> bool:
    statement = "SELECT FROM verifications WHERE kind = 'verify' AND heartbeat_at IS NOT NULL AND compared > 0"
    return bool(pipeline.run(statement))


def test_verify_whose_worker_is_killed_finds_each_difference_once(lost: Pipeline, tmp_path: Path) -> None:
    service = Service(lost.database, tmp_path)
    with lost.database.engine.begin() as connection:
        number = request(connection, "verify")
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
    assert lost.run("SELECT count(*) FROM differences WHERE verification_id = :n", n=number) == [(KEPT,)]
