"""Counters of the indexer: exact for all workers, also after a worker was killed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from opensearchpy.exceptions import OpenSearchException

from indexer import upkeep
from indexer.drain import claims, counters
from indexer.drain.round import drain_round
from infra.index.client import open_writer
from infra.operations.counters import DELAY_BOUNDS, ENDED_WORKERS, Totals, totals, workers
from tests.indexer.conftest import Pipeline
from tests.indexer.server_faults import store_unparsable_metadata


def lane_totals(pipeline: Pipeline, lane: str = "live") -> Totals:
    with pipeline.database.engine.connect() as connection:
        [lane_total] = [total for total in totals(connection) if total.lane == lane]
    return lane_total


def counts(total: Totals) -> tuple[int, int, int, int, int]:
    return total.rounds, total.changes, total.documents, total.conflicts, total.failures


def counter_rows(pipeline: Pipeline) -> list[tuple[str, str]]:
    return [tuple(row) for row in pipeline.run("SELECT worker, lane FROM indexer_counters ORDER BY 1, 2")]


def age_counters(pipeline: Pipeline) -> None:
    """Make all counters an hour older."""
    pipeline.run("UPDATE indexer_counters SET updated_at = updated_at - interval '61 minutes'")


def test_empty_round_counts_nothing(pipeline: Pipeline) -> None:
    assert pipeline.round().rows == 0
    assert counts(lane_totals(pipeline)) == (0, 0, 0, 0, 0)
    assert lane_totals(pipeline).delay_buckets == [0] * (len(DELAY_BOUNDS) + 1)
    assert counter_rows(pipeline) == []


def test_changes_and_documents_are_counted_separately(pipeline: Pipeline) -> None:
    first, second = pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.rename(first, "Again")
    pipeline.delete(second)
    assert pipeline.round().rows == 4
    assert counts(lane_totals(pipeline)) == (1, 4, 2, 0, 0)
    pipeline.insert_consumer()
    pipeline.round()
    assert counts(lane_totals(pipeline)) == (2, 5, 3, 0, 0)
    assert counts(lane_totals(pipeline, "bulk")) == (0, 0, 0, 0, 0)


def test_changes_are_counted_in_their_own_lane(pipeline: Pipeline) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.run("UPDATE outbox SET lane = 'bulk'")
    pipeline.rename(consumer, "Live")
    assert pipeline.round("live").rows == 1
    assert counts(lane_totals(pipeline, "live")) == (1, 1, 1, 0, 0)
    assert counts(lane_totals(pipeline, "bulk")) == (0, 1, 0, 0, 0)
    assert pipeline.waiting() == 0


def test_conflict_is_not_counted_as_a_written_document(pipeline: Pipeline) -> None:
    consumer = pipeline.insert_consumer()
    lie = msgspec.json.encode({"id": consumer, "environmentId": str(pipeline.environment), "deleted": False})
    assert pipeline.write_by_hand(consumer, pipeline.version(consumer) + 1000, lie) == 200
    pipeline.insert_consumer()
    pipeline.round()
    assert counts(lane_totals(pipeline)) == (1, 1, 1, 1, 0)


def test_each_failure_and_the_final_success_are_counted(pipeline: Pipeline) -> None:
    poisoned = pipeline.insert_consumer()
    pipeline.insert_consumer()
    pipeline.drain()
    store_unparsable_metadata(pipeline, poisoned)
    for attempt in range(1, claims.MAX_ATTEMPTS + 1):
        pipeline.round()
        assert counts(lane_totals(pipeline)) == (1 + attempt, 2, 2, 0, attempt)
        pipeline.run("UPDATE outbox SET retry_at = now()")
    pipeline.run("UPDATE consumers SET metadata = NULL WHERE id = :id", id=poisoned)
    pipeline.drain()
    assert counts(lane_totals(pipeline))[1:] == (4, 3, 0, claims.MAX_ATTEMPTS)


@pytest.mark.parametrize(("age", "bound"), [(-60, 0.025), (31, 60.0), (100, 300.0), (400, None)])
def test_delay_is_from_the_change_until_it_is_searchable(pipeline: Pipeline, age: int, bound: float | None) -> None:
    """The negative age is that of a clock set back."""
    pipeline.insert_consumer()
    pipeline.run("UPDATE outbox SET created_at = clock_timestamp() + :age * interval '-1 second'", age=age)
    pipeline.round()
    now = lane_totals(pipeline)
    expected = [int(each == bound) for each in (*DELAY_BOUNDS, None)]
    assert now.delay_buckets == expected
    assert now.delay_seconds >= max(age, 0)


def test_rolled_back_round_counts_nothing(pipeline: Pipeline) -> None:
    pipeline.insert_consumer()
    unreachable = msgspec.structs.replace(pipeline.database.settings, opensearch_url="http://127.0.0.1:9")
    writer = open_writer(unreachable)
    with pytest.raises(OpenSearchException), pipeline.database.engine.connect() as connection:
        drain_round(connection, writer)
    writer.close()
    assert counts(lane_totals(pipeline)) == (0, 0, 0, 0, 0)


def test_round_with_a_lost_commit_is_counted_once(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.insert_consumer()
    with monkeypatch.context() as patch:
        patch.setattr(counters, "record", terminate_after(counters.record))
        with pytest.raises(sa.exc.DBAPIError):
            pipeline.round()
    assert (counts(lane_totals(pipeline)), pipeline.waiting()) == ((0, 0, 0, 0, 0), 1)
    pipeline.round()
    assert (counts(lane_totals(pipeline)), pipeline.waiting()) == ((1, 1, 1, 0, 0), 0)


def terminate_after(step: Callable[..., None]) -> Callable[..., None]:
    """Terminate the session after a step, as a shutdown of the server does."""

    def terminating(connection: sa.Connection, *arguments: Any) -> None:
        step(connection, *arguments)
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    return terminating


def test_concurrent_drains_do_not_wait_for_each_other(pipeline: Pipeline) -> None:
    round_counts = counters.RoundCounts(1, 0, 0, {"live": [5], "bulk": [7]})
    engine = pipeline.database.engine
    with engine.connect() as one, engine.connect() as other:
        for connection in (one, other):
            connection.execute(sa.text("SET lock_timeout = '1ms'"))
            connection.commit()
        for _ in range(2):
            with one.begin(), other.begin():
                counters.record(one, "live", round_counts)
                counters.record(other, "bulk", round_counts)
    assert counts(lane_totals(pipeline, "live")) == (2, 4, 2, 0, 0)
    assert len(counter_rows(pipeline)) == 4


def test_counters_of_ended_workers_are_folded_into_one_row(pipeline: Pipeline) -> None:
    engine = pipeline.database.engine
    for round_number in range(2):
        sessions = [engine.connect() for _ in range(3)]
        for number, connection in enumerate(sessions):
            with connection.begin():
                delays = {"live": [10**number, 10**9 + round_number], "bulk": [3 * 10**8]}
                counters.record(connection, "live", counters.RoundCounts(2, number, 1, delays))
        for connection in sessions:
            connection.invalidate()
            connection.close()
        before = {lane: lane_totals(pipeline, lane) for lane in ("live", "bulk")}
        age_counters(pipeline)
        assert upkeep.fold_counters(engine) == 6
        assert counter_rows(pipeline) == [(ENDED_WORKERS, "bulk"), (ENDED_WORKERS, "live")]
        for lane, was in before.items():
            now = lane_totals(pipeline, lane)
            assert msgspec.structs.replace(now, updated_at=was.updated_at) == was
            assert now.updated_at is not None
        assert upkeep.fold_counters(engine) == 0
    assert lane_totals(pipeline).changes == 12
    with engine.connect() as connection:
        assert workers(connection) == []


def test_counters_of_a_running_worker_are_not_folded(pipeline: Pipeline) -> None:
    pipeline.insert_consumer()
    pipeline.round()
    assert upkeep.fold_counters(pipeline.database.engine) == 0
    age_counters(pipeline)
    pipeline.insert_consumer()
    pipeline.round()
    assert upkeep.fold_counters(pipeline.database.engine) == 0
    age_counters(pipeline)
    with pipeline.database.engine.begin() as connection:
        connection.exec_driver_sql("SELECT FROM indexer_counters FOR UPDATE")
        assert upkeep.fold_counters(pipeline.database.engine) == 0
    assert upkeep.fold_counters(pipeline.database.engine) == 1
    pipeline.insert_consumer()
    pipeline.round()
    assert counts(lane_totals(pipeline)) == (3, 3, 3, 0, 0)


def test_concurrent_folding_loses_no_count(pipeline: Pipeline) -> None:
    engine = pipeline.database.engine

    def work(number: int) -> int:
        if number % 2:
            return upkeep.fold_counters(engine)
        with engine.begin() as connection:
            counters.record(connection, "live", counters.RoundCounts(1, 0, 0, {"live": [1]}))
            connection.execute(
                sa.text(
                    "UPDATE indexer_counters SET updated_at = updated_at - interval '2 hours'"
                    " WHERE worker LIKE '%/' || pg_backend_pid()"
                )
            )
        return 0

    with ThreadPoolExecutor(4) as pool:
        folded = sum(pool.map(work, range(200)))
    assert folded > 0
    assert counts(lane_totals(pipeline)) == (100, 100, 100, 0, 0)
    assert sum(lane_totals(pipeline).delay_buckets) == 100


def test_row_of_a_session_is_changed_a_few_times_only(pipeline: Pipeline) -> None:
    """A held snapshot keeps each version of a row, and each round would read all of them."""
    number = 2 * counters.ROUNDS_OF_A_ROW + 5
    with pipeline.database.engine.connect() as connection:
        for _ in range(number):
            with connection.begin():
                counters.record(connection, "live", counters.RoundCounts(1, 0, 0, {"live": [1, 2]}))
        rounds = sorted(rounds for (rounds,) in pipeline.run("SELECT rounds FROM indexer_counters"))
        assert rounds == [5, counters.ROUNDS_OF_A_ROW, counters.ROUNDS_OF_A_ROW]
        [worker] = workers(connection)
    assert (worker.rounds, worker.changes) == (number, 2 * number)
    assert counts(lane_totals(pipeline)) == (number, 2 * number, number, 0, 0)
