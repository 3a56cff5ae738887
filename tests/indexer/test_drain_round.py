"""A round of the drain: afterwards the index equals the database, and no outbox row is deleted too early."""

from concurrent.futures import ThreadPoolExecutor
from typing import LiteralString

import msgspec
import pytest
import sqlalchemy as sa

from indexer.drain import claims
from infra.index import documents
from tests.indexer.conftest import Pipeline
from tests.indexer.server_faults import store_unparsable_metadata
from tests.waiting import wait_until


def test_row_is_indexed_as_exactly_its_document(pipeline: Pipeline) -> None:
    consumer = pipeline.insert_consumer("Zoë")
    pipeline.run(
        "UPDATE consumers SET metadata = CAST(:m AS jsonb) WHERE id = :id", id=consumer, m='{"b": 1.50, "a": {}}'
    )
    pipeline.round()
    with pipeline.database.engine.connect() as connection:
        stored = claims.read_consumers(connection, [consumer])[consumer]
    assert pipeline.source(consumer) == documents.document(stored.row, stored.audience_ids)
    assert pipeline.waiting() == 0


def test_membership_reaches_the_document(pipeline: Pipeline) -> None:
    consumer = pipeline.insert_consumer()
    [(audience,)] = pipeline.run(
        """WITH a AS (INSERT INTO audiences (environment_id, name, type) VALUES (:e, 'A', 'STATIC') RETURNING id)
        INSERT INTO audience_members (environment_id, audience_id, consumer_id)
        SELECT :e, id, :c FROM a RETURNING audience_id""",
        c=consumer,
    )
    pipeline.drain()
    assert pipeline.document(consumer)["audienceIds"] == [audience]
    pipeline.run("DELETE FROM audiences WHERE id = :a", a=audience)
    pipeline.drain()
    assert pipeline.document(consumer)["audienceIds"] == []


def test_deleted_consumer_becomes_a_hidden_tombstone(pipeline: Pipeline) -> None:
    gone, left = pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.round()
    version = pipeline.version(gone)
    pipeline.delete(gone)
    pipeline.round()
    tombstone = pipeline.document(gone)
    assert (tombstone["deleted"], tombstone["version"]) == (True, version + 1)
    assert pipeline.visible() == {left}
    assert pipeline.waiting() == 0


def test_late_write_cannot_revive_deleted_consumer(pipeline: Pipeline) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.round()
    old, version = pipeline.source(consumer), pipeline.version(consumer)
    pipeline.delete(consumer)
    pipeline.round()
    assert pipeline.write_by_hand(consumer, version, old) == 409
    assert pipeline.visible() == set()


def test_reinserted_consumer_overwrites_its_tombstone(pipeline: Pipeline) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.run("UPDATE consumers SET version = version + 100000000 WHERE id = :id", id=consumer)
    pipeline.delete(consumer)
    pipeline.drain()
    # This holds for rows changed more often than the distance between first versions.
    pipeline.run("INSERT INTO consumers (id, environment_id, full_name) VALUES (:id, :e, 'Again')", id=consumer)
    pipeline.drain()
    assert pipeline.document(consumer)["fullName"] == "Again"
    assert pipeline.visible() == {consumer}


@pytest.mark.parametrize("change", ["rename", "delete"])
def test_version_is_raised_above_an_index_that_is_ahead(pipeline: Pipeline, change: str) -> None:
    """The index is ahead after the database was restored to an earlier time."""
    consumer = pipeline.insert_consumer()
    pipeline.round()
    ahead = pipeline.version(consumer) + 1000
    lie = msgspec.json.encode({"id": consumer, "environmentId": str(pipeline.environment), "deleted": False})
    assert pipeline.write_by_hand(consumer, ahead, lie) == 200
    if change == "rename":
        pipeline.rename(consumer, "True")
    else:
        pipeline.delete(consumer)
    [(seq,)] = pipeline.run("SELECT seq FROM outbox")
    assert pipeline.round().conflicts == 1
    assert (seq,) in pipeline.run("SELECT seq FROM outbox"), (
        "the change is not in the index, so its outbox row must stay"
    )
    pipeline.drain()
    assert pipeline.document(consumer)["version"] > ahead
    assert pipeline.visible() == ({consumer} if change == "rename" else set())
    assert pipeline.waiting() == 0


def test_unreachable_index_version_blocks_no_other_consumer(pipeline: Pipeline) -> None:
    consumer, other = pipeline.insert_consumer(), pipeline.insert_consumer()
    lie = msgspec.json.encode({"id": consumer, "environmentId": "0", "deleted": True})
    assert pipeline.write_by_hand(consumer, 2**63 - 2, lie) == 200
    pipeline.drain()
    assert pipeline.visible() == {other}
    [(attempts, _, reason)] = pipeline.failures()
    assert attempts == 1
    assert "version conflict" in (reason or "")


def test_outbox_row_with_a_version_ahead_is_removed(pipeline: Pipeline) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.run(
        "INSERT INTO outbox (environment_id, consumer_id, version, lane) VALUES (:e, :id, 1 << 40, 'live')", id=consumer
    )
    pipeline.round()
    assert pipeline.round().rows == 0
    assert pipeline.waiting() == 0


def test_refused_document_is_retried_then_parked(pipeline: Pipeline) -> None:
    poisoned, healthy = pipeline.insert_consumer(), pipeline.insert_consumer()
    store_unparsable_metadata(pipeline, poisoned)
    for attempt in range(1, claims.MAX_ATTEMPTS + 1):
        pipeline.drain()
        assert pipeline.visible() == {healthy}
        assert [row[:2] for row in pipeline.failures()] == [(attempt, attempt == claims.MAX_ATTEMPTS)] * 2
        pipeline.run("UPDATE outbox SET retry_at = now()")
    assert "mapper_parsing_exception" in (pipeline.failures()[0][2] or "")
    assert pipeline.round().rows == 0
    # After the fix the document is searchable, and its outbox rows are gone.
    pipeline.run("UPDATE consumers SET metadata = NULL WHERE id = :id", id=poisoned)
    pipeline.drain()
    assert pipeline.visible() == {healthy, poisoned}
    assert pipeline.waiting() == 0


def test_failing_rows_at_the_head_do_not_block_others(pipeline: Pipeline) -> None:
    pipeline.run("INSERT INTO consumers (environment_id) SELECT :e FROM generate_series(1, 5000)")
    pipeline.run("UPDATE outbox SET attempts = 1, retry_at = now() + interval '1 hour'")
    healthy = pipeline.insert_consumer()
    assert pipeline.round().rows == 1
    assert pipeline.visible() == {healthy}


def test_round_refreshes_before_it_deletes_outbox_rows(pipeline: Pipeline) -> None:
    """Every item is a 409: another drain wrote a newer version and was killed before its refresh."""
    consumer = pipeline.insert_consumer("Before")
    pipeline.drain()
    pipeline.rename(consumer, "After")
    with pipeline.database.engine.connect() as connection:
        stored = claims.read_consumers(connection, [consumer])[consumer]
    newer = stored.row._replace(version=stored.row.version + 1)
    params = {"version": str(newer.version), "version_type": "external_gte"}
    pipeline.writer.index(index=pipeline.index_name, id=consumer, body=documents.document(newer, []), params=params)
    assert pipeline.round().conflicts == 1
    body = {"query": {"match": {"words": "after"}}}
    assert pipeline.database.search.count(index=pipeline.index_name, body=body)["count"] == 1


def test_change_committed_late_with_a_lower_number_is_found(pipeline: Pipeline) -> None:
    with pipeline.database.engine.connect() as slow, slow.begin():
        insert = sa.text("INSERT INTO consumers (environment_id) VALUES (:e) RETURNING id")
        early = slow.execute(insert, {"e": pipeline.environment}).scalar_one()
        late = pipeline.insert_consumer()
        pipeline.drain()
        assert pipeline.visible() == {late}
    pipeline.drain()
    assert pipeline.visible() == {early, late}


@pytest.mark.parametrize("lane", ["live", "bulk"])
def test_versions_are_raised_in_the_rounds_lane_in_the_order_of_ids(pipeline: Pipeline, lane: str) -> None:
    """A request locks consumers in the order of their ids too: another order would be a deadlock."""
    low, high = sorted(pipeline.insert_consumer() for _ in range(2))
    pipeline.drain()
    for consumer in (high, low):
        lie = msgspec.json.encode({"id": consumer, "environmentId": str(pipeline.environment), "deleted": False})
        assert pipeline.write_by_hand(consumer, 1 << 50, lie) == 200
        change: LiteralString = """
            WITH lane AS MATERIALIZED (SELECT set_config('consumers.lane', :lane, true) AS name)
            UPDATE consumers SET full_name = 'True' FROM lane WHERE id = :id AND name <> ''"""
        pipeline.run(change, lane=lane, id=consumer)
    lock = "SELECT FROM consumers WHERE id = %s FOR NO KEY UPDATE"
    waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool:
        with pipeline.database.engine.begin() as request:
            request.exec_driver_sql(lock, (low,))
            round_ = pool.submit(pipeline.round, lane)
            wait_until(lambda: pipeline.run(waits), what="the round to wait")
            request.exec_driver_sql(lock, (high,))
        assert round_.result().conflicts == 2
    assert pipeline.run("SELECT lane, count(*) FROM outbox GROUP BY lane") == [(lane, 4)]
    pipeline.drain()
    assert [pipeline.document(consumer)["fullName"] for consumer in (low, high)] == ["True", "True"]
    assert pipeline.waiting() == 0
