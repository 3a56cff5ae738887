"""Runs of verify and repair, also after a worker was killed or frozen."""

import os
import subprocess
import threading
from typing import Any, LiteralString

import pytest
import sqlalchemy as sa

from indexer.drain.claims import VERSION_LIMIT
from indexer.verify import compare, pool, runs
from indexer.verify.pool import ComparisonPool
from indexer.verify.runs import Runner
from infra.index.naming import read_alias
from infra.operations import verify
from infra.operations.verify import Run, VerificationError, find_run, known_differences, latest_runs, request_run
from tests.indexer.comparison import compare_index
from tests.indexer.conftest import Pipeline
from tests.indexer.index_faults import FAULTS, add_copy, remove_document, rewrite_document
from tests.waiting import wait_until

WRITTEN: LiteralString = """
    SELECT column_name FROM information_schema.columns WHERE table_name = 'consumers' AND is_generated = 'NEVER'"""


@pytest.fixture
def filled(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setattr(runs, "WATCH_ROWS", 7)
    pipeline.run("INSERT INTO consumers (environment_id, full_name) SELECT :e, 'n' || n FROM generate_series(1, 24) n")
    pipeline.run("DELETE FROM consumers WHERE full_name IN ('n3', 'n4', 'n20')")
    pipeline.drain()
    return pipeline


def runner(pipeline: Pipeline) -> Runner:
    settings, engine = pipeline.database.settings, pipeline.database.engine
    pool = ComparisonPool(settings, engine, pipeline.writer)
    return Runner(engine, pipeline.writer, read_alias(settings.index_prefix), pool)


def start_run(pipeline: Pipeline, *arguments: Any, **options: Any) -> int:
    with pipeline.database.engine.begin() as connection:
        return request_run(connection, *arguments, **options)


def read_run(pipeline: Pipeline, number: int) -> Run:
    with pipeline.database.engine.connect() as connection:
        run = find_run(connection, number)
    assert run
    return run


def complete_run(pipeline: Pipeline, *arguments: Any, **options: Any) -> Run:
    """Request a run, and work until the run is over."""
    number = start_run(pipeline, *arguments, **options)
    while not read_run(pipeline, number).is_over:
        assert runner(pipeline).work(60)
    return read_run(pipeline, number)


def consumer_ids(pipeline: Pipeline) -> list[str]:
    return [id_ for (id_,) in pipeline.run("SELECT id FROM consumers ORDER BY id")]


def plant_all_faults(pipeline: Pipeline) -> dict[str, str]:
    """Plant every fault, and return the causes by document id."""
    return {
        fault.plant(pipeline, victim): fault.cause
        for fault, victim in zip(FAULTS.values(), consumer_ids(pipeline), strict=False)
    }


def test_run_reports_compared_consumers_and_differences(filled: Pipeline) -> None:
    wrong = plant_all_faults(filled)
    run = complete_run(filled, "verify")
    assert (run.state, run.kind, run.environment, run.error) == ("done", "verify", None, None)
    assert (run.total, run.differences) == (20, len(wrong))
    assert run.compared == 20
    assert not run.agrees
    rows = filled.run("SELECT document_id, cause FROM differences")
    assert dict(rows) == wrong


def test_repair_fixes_every_fault(filled: Pipeline) -> None:
    wrong = plant_all_faults(filled)
    run = complete_run(filled, "repair")
    assert (run.differences, run.mended) == (len(wrong), len(wrong))
    filled.drain()
    assert complete_run(filled, "verify").agrees
    assert filled.visible() == set(consumer_ids(filled))
    assert filled.waiting() == 0


def test_repair_of_a_run_fixes_only_its_differences(filled: Pipeline) -> None:
    first, second, *_ = consumer_ids(filled)
    remove_document(filled, first)
    number = complete_run(filled, "verify").id
    rewrite_document(filled, second, fullName="Mallory")
    assert complete_run(filled, "repair", repairs=number).mended == 1
    filled.drain()
    run = complete_run(filled, "verify")
    assert run.causes == {"content": 1}
    assert filled.document(first)["fullName"]


def test_repair_uses_the_bulk_lane(filled: Pipeline) -> None:
    remove_document(filled, consumer_ids(filled)[0])
    complete_run(filled, "repair")
    assert filled.run("SELECT lane FROM outbox") == [("bulk",)]


def test_queued_change_is_not_a_difference(filled: Pipeline) -> None:
    first, second, third, *_ = consumer_ids(filled)
    filled.rename(first, "Somebody else")
    filled.delete(second)
    remove_document(filled, third)
    filled.rename(third, "Third")
    filled.insert_consumer()
    run = complete_run(filled, "verify")
    assert (run.differences, run.in_flight) == (0, 4)


def test_parked_change_is_a_difference(filled: Pipeline) -> None:
    filled.rename(consumer_ids(filled)[0], "Somebody else")
    filled.run("UPDATE outbox SET parked_at = now()")
    assert complete_run(filled, "verify").causes == {"stale": 1}


def test_run_of_a_killed_worker_is_resumed_at_its_position(filled: Pipeline) -> None:
    remove_document(filled, consumer_ids(filled)[2])
    number = start_run(filled, "verify")
    assert runner(filled).work(0)
    filled.run("UPDATE verifications SET heartbeat_at = now(), position = :p, compared = 5", p=consumer_ids(filled)[4])
    assert not runner(filled).work(60)
    filled.run("UPDATE verifications SET heartbeat_at = now() - interval '31 seconds'")
    assert runner(filled).work(60)
    assert (read_run(filled, number).state, read_run(filled, number).compared) == ("done", 21)


def test_worker_that_lost_its_claim_writes_nothing(filled: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    number = start_run(filled, "verify")
    ordinary = compare.compare_range

    def frozen(*arguments: Any) -> compare.Comparison:
        filled.run("UPDATE verifications SET claim = claim + 1")
        return ordinary(*arguments)

    monkeypatch.setattr(compare, "compare_range", frozen)
    assert not runner(filled).work(60)
    assert (read_run(filled, number).state, read_run(filled, number).compared) == ("running", 0)


def test_run_without_an_index_fails_with_an_error(filled: Pipeline) -> None:
    filled.run(
        "UPDATE verifications SET index_name = 'nothing' WHERE id = :n", n=(number := start_run(filled, "verify"))
    )
    assert not runner(filled).work(60)
    assert (read_run(filled, number).state, read_run(filled, number).error) == ("failed", "NotFoundError 404")


def test_watch_completes_a_run_and_reports_differences(filled: Pipeline) -> None:
    add_copy(filled, consumer_ids(filled)[0])
    remove_document(filled, consumer_ids(filled)[-1])
    for _ in range(4):
        runner(filled).watch()
    with filled.database.engine.connect() as connection:
        assert {cause: count for cause, count in known_differences(connection).items() if count} == {
            "missing": 1,
            "resurrected": 1,
        }
        [run] = latest_runs(connection, 9)
    assert (run.kind, run.state, run.compared, run.differences) == ("watch", "done", 21, 2)
    complete_run(filled, "repair")
    with filled.database.engine.connect() as connection:
        assert not any(known_differences(connection).values())


def test_processes_start_for_large_runs_but_not_for_the_watch(
    filled: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "PROCESS_THRESHOLD", 10)
    own_runner = runner(filled)

    def count_processes() -> int:
        command = ["pgrep", "-P", str(os.getpid()), "-f", "indexer.verify.pool"]
        listing = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        return len(listing.stdout.split())

    for _ in range(4):
        own_runner.watch()
        assert count_processes() == 0
    start_run(filled, "verify")
    assert own_runner.work(60)
    assert count_processes() == pool.PROCESSES
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.0)
    assert not own_runner.work(60)
    assert count_processes() == 0


def test_unfinished_run_cannot_be_repaired(filled: Pipeline) -> None:
    number = start_run(filled, "verify")
    with pytest.raises(VerificationError, match="requested"):
        start_run(filled, "repair", repairs=number)
    with pytest.raises(VerificationError, match="no run"):
        start_run(filled, "repair", repairs=number + 1)


def test_no_false_difference_during_writes_and_drains(filled: Pipeline) -> None:
    ids, stop = consumer_ids(filled), threading.Event()

    def write_continuously() -> None:
        while not stop.is_set():
            new = filled.insert_consumer()
            for each in (*ids[:5], new):
                filled.rename(each, "Somebody else")
            filled.delete(new)

    def drain() -> None:
        while not stop.is_set():
            filled.drain()

    threads = [threading.Thread(target=each) for each in (write_continuously, write_continuously, drain, drain)]
    for thread in threads:
        thread.start()
    try:
        reports = [compare_index(filled) for _ in range(30)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [report.differences for report in reports if report.differences] == []
    assert any(report.in_flight for report in reports)


def test_old_watch_runs_are_deleted(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "KEPT_RUNS", 3)
    monkeypatch.setattr(runs, "ROUND_SECONDS", 0)
    for _ in range(9):
        runner(pipeline).watch()
    assert pipeline.run("SELECT count(*) FROM verifications WHERE finished_at IS NOT NULL") == [(3,)]


@pytest.mark.parametrize("version", [VERSION_LIMIT, VERSION_LIMIT + 5, (1 << 63) - 2, (1 << 63) - 1])
def test_document_above_the_version_limit_is_repaired(filled: Pipeline, version: int) -> None:
    """No row version can be raised above the limit, so the document is deleted and written again.

    OpenSearch accepts the write after forgetting the delete, within a minute; the drain's attempts last longer.
    """
    settings: Any = {"index.gc_deletes": "0s"}
    filled.writer.indices.put_settings(index=filled.index_name, body=settings)
    consumer, other, *_ = consumer_ids(filled)
    assert rewrite_document(filled, consumer, version - filled.version(consumer), fullName="Mallory")
    added = add_copy(filled, other, version=version)
    filled.write_by_hand(added, version, filled.source(added))
    assert complete_run(filled, "verify").causes == {"ahead": 1, "resurrected": 1}
    run = complete_run(filled, "repair")
    assert run.mended == 2

    def is_drained() -> bool:
        # Attempts are reset, because rounds here are faster than the clock checks of OpenSearch.
        filled.run("UPDATE outbox SET retry_at = NULL, attempts = 0")
        filled.drain()
        return filled.waiting() == 0

    wait_until(is_drained, what="OpenSearch to forget the delete")
    assert complete_run(filled, "verify").agrees
    assert filled.document(consumer)["fullName"] == "n1"
    assert filled.visible() == set(consumer_ids(filled))


def test_restored_older_database_is_found_and_repaired(filled: Pipeline) -> None:
    changed, deleted, *_ = consumer_ids(filled)
    columns = ", ".join(name for (name,) in filled.run(WRITTEN))
    with filled.database.engine.connect() as connection:
        before = connection.execute(sa.text(f"SELECT {columns} FROM consumers")).mappings().all()
    filled.rename(changed, "Later")
    filled.delete(deleted)
    made = filled.insert_consumer("Made later")
    filled.drain()
    with filled.database.engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        connection.execute(sa.text("DELETE FROM consumers"))
        values = ", ".join(f":{name}" for name in columns.split(", "))
        insert = sa.text(f"INSERT INTO consumers ({columns}) VALUES ({values})")
        connection.execute(insert, [dict(row) for row in before])
    assert complete_run(filled, "verify").causes == {"ahead": 2, "resurrected": 1}
    assert complete_run(filled, "repair").mended == 3
    filled.drain()
    assert complete_run(filled, "verify").agrees
    assert made not in filled.visible()
    assert filled.visible() == set(consumer_ids(filled))
    assert filled.document(changed)["fullName"] == "n1"
    filled.rename(deleted, "After it")
    filled.drain()
    assert filled.document(deleted)["fullName"] == "After it"
    assert complete_run(filled, "verify").agrees
