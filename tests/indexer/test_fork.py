"""Documents of writes that a fail-over or restore lost are found by version and sequence number, and corrected."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from indexer.rebuild.lost_index import reconcile
from infra.database import epochs
from infra.operations.verify import Run, latest_runs
from tests.indexer.conftest import Pipeline
from tests.indexer.test_verify_runs import WRITTEN, complete_run, consumer_ids, runner

CONSUMERS = 50


@pytest.fixture
def filled(pipeline: Pipeline) -> Pipeline:
    """Consumers in the index, whose position is recorded."""
    insert = "INSERT INTO consumers (environment_id, full_name) SELECT :e, 'n' || n FROM generate_series(1, :n) n"
    pipeline.run(insert, n=CONSUMERS)
    pipeline.drain()
    pipeline.writer.indices.flush(index=pipeline.index_name)
    reconcile(pipeline.database.engine, pipeline.database.search, pipeline.database.settings)
    return pipeline


@contextmanager
def lost_changes(pipeline: Pipeline, *, timeline: int = 1) -> Iterator[None]:
    """Set the database back to the rows of before, with another server, as after a fail-over."""
    columns = ", ".join(name for (name,) in pipeline.run(WRITTEN))
    with pipeline.database.engine.connect() as connection:
        before = connection.execute(sa.text(f"SELECT {columns} FROM consumers")).mappings().all()
    yield
    with pipeline.database.engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        connection.execute(sa.text("DELETE FROM consumers"))
        values = ", ".join(f":{name}" for name in columns.split(", "))
        insert = sa.text(f"INSERT INTO consumers ({columns}) VALUES ({values})")
        connection.execute(insert, [dict(row) for row in before])
        if timeline:
            connection.execute(sa.text("UPDATE epochs SET timeline = timeline + :n"), {"n": timeline})
        else:
            restart = "UPDATE epochs SET server_started_at = server_started_at - interval '1 hour'"
            connection.execute(sa.text(restart))


def begin_epoch(pipeline: Pipeline) -> None:
    with pipeline.database.engine.begin() as connection:
        assert epochs.check(connection)


def end_wait_for_late_writes(pipeline: Pipeline) -> None:
    pipeline.run("UPDATE epochs SET began_at = began_at - interval '5 minutes'")


def run_of(pipeline: Pipeline, kind: str) -> Run | None:
    with pipeline.database.engine.connect() as connection:
        return next(iter(latest_runs(connection, 1, [kind])), None)  # type: ignore[list-item]


def fork_run(pipeline: Pipeline) -> Run:
    run = run_of(pipeline, "fork")
    assert run
    return run


def test_lost_changes_are_corrected_without_reading_other_documents(filled: Pipeline) -> None:
    changed, deleted, *_ = consumer_ids(filled)
    with lost_changes(filled):
        filled.rename(changed, "Lost")
        filled.delete(deleted)
        filled.insert_consumer("Lost as well")
        filled.drain()
    begin_epoch(filled)
    runner(filled).work(60)
    run = fork_run(filled)
    assert (run.compared, run.mended, run.causes) == (3, 3, {"ahead": 2, "resurrected": 1})
    assert not run.is_over
    filled.drain()
    assert complete_run(filled, "verify").agrees
    assert filled.visible() == set(consumer_ids(filled))
    assert filled.document(changed)["fullName"] == "n1"


def test_late_write_of_the_lost_history_is_corrected(filled: Pipeline) -> None:
    """A worker that was frozen before the fail-over writes its document afterwards."""
    changed, *_ = consumer_ids(filled)
    with lost_changes(filled):
        filled.rename(changed, "Late")
        version = filled.version(changed)
        filled.drain()
        late = filled.source(changed)
    begin_epoch(filled)
    runner(filled).work(60)
    filled.drain()
    other = consumer_ids(filled)[-1]
    late = late.replace(changed.encode(), other.encode())
    assert filled.write_by_hand(other, version + (1 << 30), late) == 200
    assert filled.write_by_hand(changed, version, late) == 409, "every version of the new history is higher"
    runner(filled).work(60)
    filled.drain()
    assert complete_run(filled, "verify").agrees
    end_wait_for_late_writes(filled)
    runner(filled).work(60)
    assert (fork_run(filled).state, fork_run(filled).mended) == ("done", 2)
    assert run_of(filled, "repair"), "the whole index is compared afterwards"


def test_restart_compares_recent_documents_only(filled: Pipeline) -> None:
    changed, *_ = consumer_ids(filled)
    with lost_changes(filled, timeline=0):
        pass
    begin_epoch(filled)
    filled.rename(changed, "New")
    filled.drain()
    end_wait_for_late_writes(filled)
    runner(filled).work(60)
    run = fork_run(filled)
    assert (run.state, run.compared, run.differences) == ("done", 0, 0)
    assert run_of(filled, "repair") is None


def test_lost_changes_after_a_restart_are_corrected_everywhere(filled: Pipeline) -> None:
    """A base backup started without `recovery.signal` has the same timeline."""
    changed, *_ = consumer_ids(filled)
    with lost_changes(filled, timeline=0):
        filled.rename(changed, "Lost")
        filled.drain()
    begin_epoch(filled)
    end_wait_for_late_writes(filled)
    runner(filled).work(60)
    assert fork_run(filled).mended == 1
    assert run_of(filled, "repair")
    filled.drain()
    assert filled.document(changed)["fullName"] == "n1"


def test_fork_run_comes_before_requested_runs_and_survives_an_outage(filled: Pipeline) -> None:
    changed, *_ = consumer_ids(filled)
    with lost_changes(filled):
        filled.rename(changed, "Lost")
        filled.drain()
    begin_epoch(filled)
    filled.run("UPDATE verifications SET attempts = 1000")
    filled.database.search.indices.close(index=filled.index_name)
    runner(filled).work(60)
    assert fork_run(filled).state == "running"
    filled.database.search.indices.open(index=filled.index_name)
    runner(filled).work(60)
    assert fork_run(filled).mended == 1
