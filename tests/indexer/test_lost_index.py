"""Lost index: an index different from the recorded index is not read, and is rebuilt."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from opensearchpy.exceptions import NotFoundError

from indexer.rebuild.builder import Builder
from indexer.rebuild.doubts import CONFIRMATIONS, Doubts
from indexer.rebuild.lost_index import reconcile
from infra.database import installation
from infra.index import generations, indices, naming
from infra.operations.rebuild import RebuildError
from tests.guarantees.index_comparison import assert_index_equals_database
from tests.indexer.conftest import Pipeline
from tests.indexer.rebuild_steps import (
    advance_to,
    generation_states,
    index_names,
    indices_read,
    latest_rebuild,
    rebuild,
    run_to_end,
    second_index,
    send_request,
)


def reconcile_index(pipeline: Pipeline) -> None:
    reconcile(pipeline.database.engine, pipeline.database.search, pipeline.database.settings)


def read_alias(pipeline: Pipeline) -> str:
    return naming.read_alias(pipeline.database.settings.index_prefix)


def delete_index(pipeline: Pipeline) -> None:
    pipeline.database.search.indices.delete(index=pipeline.index_name)


def replace_index(pipeline: Pipeline) -> None:
    """Replace the index by an empty index with the same name and aliases, as from a snapshot."""
    delete_index(pipeline)
    indices.create(pipeline.database.search, pipeline.index_name)
    indices.switch_reads(pipeline.database.search, pipeline.database.settings.index_prefix, pipeline.index_name)


def replace_by_dynamic_index(pipeline: Pipeline) -> None:
    """Replace the index by an index without mapping, as `action.auto_create_index` does."""
    delete_index(pipeline)
    pipeline.database.search.indices.create(index=pipeline.index_name)


def restore_snapshot(pipeline: Pipeline) -> None:
    """Restore a snapshot into the closed index, which keeps its UUID."""
    name = pipeline.index_name
    snapshot, indices = pipeline.database.search.snapshot, pipeline.database.search.indices
    snapshot.create_repository(repository=name, body={"type": "fs", "settings": {"location": name}})
    snapshot.create(repository=name, snapshot="s", body={"indices": name}, params={"wait_for_completion": "true"})
    indices.close(index=name)
    snapshot.restore(repository=name, snapshot="s", body={"indices": name}, params={"wait_for_completion": "true"})
    snapshot.delete_repository(repository=name)


def lose_operations(pipeline: Pipeline) -> None:
    """Simulate older files: the same shard has fewer operations than were seen."""
    reconcile_index(pipeline)
    pipeline.run("UPDATE generations SET seen_seq_nos[1] = seen_seq_nos[1] + 1")


@pytest.mark.parametrize(
    "harm", [delete_index, replace_index, replace_by_dynamic_index, restore_snapshot, lose_operations]
)
def test_lost_index_is_not_read_and_is_rebuilt(
    pipeline: Pipeline, builder: Builder, harm: Callable[[Pipeline], None]
) -> None:
    consumer, gone = pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.drain()
    pipeline.delete(gone)
    harm(pipeline)
    reconcile_index(pipeline)
    with pytest.raises(NotFoundError):
        pipeline.visible()
    with pytest.raises(Exception, match="404"):
        pipeline.round()
    reconcile_index(pipeline)
    assert latest_rebuild(pipeline).phase == "requested"
    assert run_to_end(pipeline, builder).phase == "done"
    pipeline.drain()
    assert generation_states(pipeline) == ["dropped", "live"]
    assert index_names(pipeline) == indices_read(pipeline) == [second_index(pipeline)]
    assert pipeline.visible() == {consumer}
    assert_index_equals_database(pipeline.database)


@pytest.mark.parametrize(("harm", "phase"), [(lose_operations, "requested"), (delete_index, "verifying")])
def test_incomplete_index_is_served_with_the_setting(
    pipeline: Pipeline, builder: Builder, harm: Callable[[Pipeline], None], phase: str
) -> None:
    """The index with older files is served at once, the new index from the time it has documents."""
    settings = msgspec.structs.replace(pipeline.database.settings, serve_incomplete_index=True)
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    harm(pipeline)
    reconcile(pipeline.database.engine, pipeline.database.search, settings)
    # The loss is committed before an incomplete index is read.
    with pytest.raises(NotFoundError):
        pipeline.visible()
    reconcile(pipeline.database.engine, pipeline.database.search, settings)
    advance_to(pipeline, builder, phase)
    reconcile(pipeline.database.engine, pipeline.database.search, settings)
    assert pipeline.visible() == {consumer}
    assert run_to_end(pipeline, builder).phase == "done"
    reconcile(pipeline.database.engine, pipeline.database.search, settings)
    assert indices_read(pipeline) == [second_index(pipeline)]


class DoubtsAboutSeveralNodes(Doubts):
    """The doubts in a cluster of several nodes, which the servers of the tests are not."""

    def _is_single_node(self) -> bool:
        return False


def test_index_of_several_nodes_is_lost_after_several_comparisons(pipeline: Pipeline) -> None:
    database, doubts = pipeline.database, DoubtsAboutSeveralNodes(pipeline.database.search)
    pipeline.insert_consumer()
    pipeline.drain()
    lose_operations(pipeline)

    def is_lost_after_comparison() -> bool:
        reconcile(database.engine, database.search, database.settings, doubts)
        [(lost,)] = pipeline.run("SELECT lost_at IS NOT NULL FROM generations WHERE state = 'live'")
        return bool(lost)

    assert [is_lost_after_comparison() for _ in range(CONFIRMATIONS - 1)] == [False, False]
    pipeline.run("UPDATE generations SET seen_seq_nos[1] = seen_seq_nos[1] - 1")
    assert not is_lost_after_comparison(), "a comparison without the fault"
    lose_operations(pipeline)
    assert [is_lost_after_comparison() for _ in range(CONFIRMATIONS)] == [False, False, True]


def test_healthy_index_is_not_touched(pipeline: Pipeline) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    reconcile_index(pipeline)
    assert pipeline.visible() == {consumer}
    assert pipeline.run("SELECT state, lost_at FROM generations") == [("live", None)]


@pytest.mark.parametrize("alias", ["read", "write"])
def test_removed_alias_is_restored(pipeline: Pipeline, alias: str) -> None:
    consumer = pipeline.insert_consumer()
    name = read_alias(pipeline) if alias == "read" else naming.write_alias(pipeline.index_name)
    pipeline.database.search.indices.delete_alias(index=pipeline.index_name, name=name)
    reconcile_index(pipeline)
    pipeline.drain()
    assert pipeline.visible() == {consumer}


def test_unrecorded_swap_is_undone_and_repeated(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "swapping")
    prefix = pipeline.database.settings.index_prefix
    indices.switch_reads(pipeline.database.search, prefix, second_index(pipeline))
    reconcile_index(pipeline)
    assert indices_read(pipeline) == [pipeline.index_name]
    assert run_to_end(pipeline, builder).phase == "done"
    assert indices_read(pipeline) == [second_index(pipeline)]
    assert pipeline.visible() == {consumer}


def test_cancel_after_an_unrecorded_swap_keeps_the_live_index(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "swapping")
    indices.switch_reads(pipeline.database.search, pipeline.database.settings.index_prefix, second_index(pipeline))
    send_request(pipeline, "cancel")
    run_to_end(pipeline, builder)
    assert index_names(pipeline) == indices_read(pipeline) == [pipeline.index_name]
    assert pipeline.visible() == {consumer}


def test_nothing_is_repaired_during_a_swap(pipeline: Pipeline) -> None:
    with pipeline.database.engine.begin() as connection:
        connection.execute(generations.LOCK_BARRIER)
        pipeline.database.search.indices.delete_alias(index=pipeline.index_name, name=read_alias(pipeline))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(reconcile_index, pipeline).result()
        with pytest.raises(NotFoundError):
            indices_read(pipeline)


@pytest.mark.parametrize("phase", ["filling", "verifying", "swapping"])
def test_rebuild_fails_if_its_index_is_removed(pipeline: Pipeline, builder: Builder, phase: str) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, phase)
    pipeline.database.search.indices.delete(index=second_index(pipeline))
    reconcile_index(pipeline)
    done = run_to_end(pipeline, builder)
    assert (done.phase, done.error) == ("failed", "its index was removed")
    assert pipeline.visible() == {consumer}
    assert rebuild(pipeline, builder).phase == "done"


def test_index_created_after_its_removal_is_deleted(pipeline: Pipeline, builder: Builder) -> None:
    """A busy cluster creates the index of a rebuild after the rebuild was cancelled."""
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "creating")
    send_request(pipeline, "cancel")
    run_to_end(pipeline, builder)
    with pipeline.database.engine.connect() as connection:
        owner = installation.read(connection)
    indices.create(pipeline.database.search, second_index(pipeline), owner)
    reconcile_index(pipeline)
    while builder.step():
        pass
    assert index_names(pipeline) == [pipeline.index_name]


def test_removed_kept_index_is_dropped(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.insert_consumer()
    rebuild(pipeline, builder)
    delete_index(pipeline)
    reconcile_index(pipeline)
    with pytest.raises(RebuildError):
        send_request(pipeline, "rollback")
    builder.work(5)
    assert generation_states(pipeline) == ["dropped", "live"]
    pipeline.drain()
    assert pipeline.visible() == {consumer}


def test_missing_uuid_of_an_index_is_recorded(pipeline: Pipeline) -> None:
    pipeline.run("UPDATE generations SET index_uuid = NULL")
    reconcile_index(pipeline)
    [(uuid,)] = pipeline.run("SELECT index_uuid FROM generations")
    assert (
        uuid
        == indices.existing(pipeline.database.search, pipeline.database.settings.index_prefix)[pipeline.index_name].uuid
    )
