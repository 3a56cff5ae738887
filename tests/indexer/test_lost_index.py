"""The rows are right: an index that is not the one that was made is not read, and is made anew."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from opensearchpy.exceptions import NotFoundError

from indexer.rebuild.builder import Builder
from indexer.rebuild.lost_index import reconcile
from infra.index import generations, indices, naming
from infra.operations.rebuild import RebuildError
from tests.guarantees.index_comparison import assert_agreement
from tests.indexer.conftest import Pipeline
from tests.indexer.rebuild_steps import ask, build, index_names, latest, next_index, reach, read_index, rebuild, states


def look(pipeline: Pipeline) -> None:
    reconcile(pipeline.database.engine, pipeline.database.search, pipeline.database.settings)


def read_alias(pipeline: Pipeline) -> str:
    return naming.read_alias(pipeline.database.settings.index_prefix)


def remove(pipeline: Pipeline) -> None:
    pipeline.database.search.indices.delete(index=pipeline.index_name)


def replace(pipeline: Pipeline) -> None:
    """As from a snapshot: the same name and aliases, and something else in it."""
    remove(pipeline)
    indices.create(pipeline.database.search, pipeline.index_name)
    indices.switch_reads(pipeline.database.search, pipeline.database.settings.index_prefix, pipeline.index_name)


def replace_by_anything(pipeline: Pipeline) -> None:
    """As a cluster does that makes indices by itself."""
    remove(pipeline)
    pipeline.database.search.indices.create(index=pipeline.index_name)


def restore(pipeline: Pipeline) -> None:
    """From a snapshot into the closed index, which keeps its UUID."""
    name = pipeline.index_name
    snapshot, indices = pipeline.database.search.snapshot, pipeline.database.search.indices
    snapshot.create_repository(repository=name, body={"type": "fs", "settings": {"location": name}})
    snapshot.create(repository=name, snapshot="s", body={"indices": name}, params={"wait_for_completion": "true"})
    indices.close(index=name)
    snapshot.restore(repository=name, snapshot="s", body={"indices": name}, params={"wait_for_completion": "true"})
    snapshot.delete_repository(repository=name)


def go_back(pipeline: Pipeline) -> None:
    """As with older files: the very same index has fewer operations than were seen."""
    look(pipeline)
    pipeline.run("UPDATE generations SET seen_seq_no = seen_seq_no + 1")


@pytest.mark.parametrize("harm", [remove, replace, replace_by_anything, restore, go_back])
def test_lost_index_is_not_read_and_is_rebuilt(
    pipeline: Pipeline, builder: Builder, harm: Callable[[Pipeline], None]
) -> None:
    consumer, gone = pipeline.consumer(), pipeline.consumer()
    pipeline.drain()
    pipeline.delete(gone)
    harm(pipeline)
    look(pipeline)
    with pytest.raises(NotFoundError):
        pipeline.visible()
    with pytest.raises(Exception, match="404"):
        pipeline.round()
    look(pipeline)
    assert latest(pipeline).phase == "requested"
    assert build(pipeline, builder).phase == "done"
    pipeline.drain()
    assert states(pipeline) == ["dropped", "live"]
    assert index_names(pipeline) == read_index(pipeline) == [next_index(pipeline)]
    assert pipeline.visible() == {consumer}
    assert_agreement(pipeline.database)


def test_healthy_index_is_not_touched(pipeline: Pipeline) -> None:
    consumer = pipeline.consumer()
    pipeline.drain()
    look(pipeline)
    assert pipeline.visible() == {consumer}
    assert pipeline.run("SELECT state, lost_at FROM generations") == [("live", None)]


@pytest.mark.parametrize("alias", ["read", "write"])
def test_removed_alias_is_restored(pipeline: Pipeline, alias: str) -> None:
    consumer = pipeline.consumer()
    name = read_alias(pipeline) if alias == "read" else naming.write_alias(pipeline.index_name)
    pipeline.database.search.indices.delete_alias(index=pipeline.index_name, name=name)
    look(pipeline)
    pipeline.drain()
    assert pipeline.visible() == {consumer}


def test_unrecorded_swap_is_undone_and_repeated(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.consumer()
    pipeline.drain()
    ask(pipeline, "rebuild")
    reach(pipeline, builder, "swapping")
    prefix = pipeline.database.settings.index_prefix
    indices.switch_reads(pipeline.database.search, prefix, next_index(pipeline))
    look(pipeline)
    assert read_index(pipeline) == [pipeline.index_name]
    assert build(pipeline, builder).phase == "done"
    assert read_index(pipeline) == [next_index(pipeline)]
    assert pipeline.visible() == {consumer}


def test_cancel_after_an_unrecorded_swap_keeps_the_live_index(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.consumer()
    pipeline.drain()
    ask(pipeline, "rebuild")
    reach(pipeline, builder, "swapping")
    indices.switch_reads(pipeline.database.search, pipeline.database.settings.index_prefix, next_index(pipeline))
    ask(pipeline, "cancel")
    build(pipeline, builder)
    assert index_names(pipeline) == read_index(pipeline) == [pipeline.index_name]
    assert pipeline.visible() == {consumer}


def test_nothing_is_repaired_during_a_swap(pipeline: Pipeline) -> None:
    with pipeline.database.engine.begin() as connection:
        connection.execute(generations.LOCK_BARRIER)
        pipeline.database.search.indices.delete_alias(index=pipeline.index_name, name=read_alias(pipeline))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(look, pipeline).result()
        with pytest.raises(NotFoundError):
            read_index(pipeline)


@pytest.mark.parametrize("phase", ["filling", "verifying", "swapping"])
def test_rebuild_fails_if_its_index_is_removed(pipeline: Pipeline, builder: Builder, phase: str) -> None:
    consumer = pipeline.consumer()
    pipeline.drain()
    ask(pipeline, "rebuild")
    reach(pipeline, builder, phase)
    pipeline.database.search.indices.delete(index=next_index(pipeline))
    look(pipeline)
    done = build(pipeline, builder)
    assert (done.phase, done.error) == ("failed", "its index was removed")
    assert pipeline.visible() == {consumer}
    assert rebuild(pipeline, builder).phase == "done"


def test_removed_kept_index_is_dropped(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.consumer()
    rebuild(pipeline, builder)
    remove(pipeline)
    look(pipeline)
    with pytest.raises(RebuildError):
        ask(pipeline, "rollback")
    builder.work(5)
    assert states(pipeline) == ["dropped", "live"]
    pipeline.drain()
    assert pipeline.visible() == {consumer}


def test_missing_uuid_of_an_index_is_recorded(pipeline: Pipeline) -> None:
    pipeline.run("UPDATE generations SET index_uuid = NULL")
    look(pipeline)
    [(known,)] = pipeline.run("SELECT index_uuid FROM generations")
    assert (
        known
        == indices.existing(pipeline.database.search, pipeline.database.settings.index_prefix)[pipeline.index_name].uuid
    )
