"""Tombstones are purged a week after the delete, unless another generation needs them."""

import msgspec
import pytest

from indexer import upkeep
from indexer.rebuild.builder import Builder
from tests.indexer.conftest import Pipeline
from tests.indexer.rebuild_steps import advance_to, rebuild, run_to_end, second_index, send_request, stored_document


def insert_tombstone(pipeline: Pipeline, days: int) -> str:
    """Create the tombstone of a consumer deleted some days ago."""
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    version = pipeline.version(consumer)
    pipeline.delete(consumer)
    pipeline.drain()
    [(moment,)] = pipeline.run(
        "SELECT to_char(now() - :days * interval '1 day', 'YYYY-MM-DD\"T\"00:00:00.000Z')", days=days
    )
    old = pipeline.document(consumer) | {"deletedAt": moment}
    assert pipeline.write_by_hand(consumer, version + 1, msgspec.json.encode(old)) == 200
    return consumer


def purge(pipeline: Pipeline) -> int:
    return upkeep.purge_tombstones(pipeline.database.engine, pipeline.writer)


def test_only_old_tombstones_are_purged(pipeline: Pipeline) -> None:
    old, young, alive = insert_tombstone(pipeline, 9), insert_tombstone(pipeline, 5), pipeline.insert_consumer()
    pipeline.drain()
    assert purge(pipeline) == 1
    assert stored_document(pipeline, pipeline.index_name, old) is None
    assert stored_document(pipeline, pipeline.index_name, young)["deleted"] is True
    assert pipeline.visible() == {alive}
    assert purge(pipeline) == 0


def test_reinserted_consumer_is_not_purged(pipeline: Pipeline) -> None:
    consumer = insert_tombstone(pipeline, 9)
    pipeline.run("INSERT INTO consumers (id, environment_id) VALUES (:id, :e)", id=consumer)
    pipeline.drain()
    assert purge(pipeline) == 0
    assert pipeline.visible() == {consumer}


@pytest.mark.parametrize("state", ["built", "kept"])
def test_nothing_is_purged_while_another_generation_exists(pipeline: Pipeline, builder: Builder, state: str) -> None:
    old = insert_tombstone(pipeline, 9)
    if state == "built":
        send_request(pipeline, "rebuild")
        advance_to(pipeline, builder, "filling")
    else:
        rebuild(pipeline, builder)
        send_request(pipeline, "rollback")
        run_to_end(pipeline, builder)
    assert purge(pipeline) == 0
    assert stored_document(pipeline, pipeline.index_name, old)["deleted"] is True
    send_request(pipeline, "cancel" if state == "built" else "drop")
    builder.work(5)
    assert purge(pipeline) == 1
    assert second_index(pipeline) not in pipeline.database.search.indices.get(index="*")
