"""A rebuild, step by step: nothing is lost, nothing half-done is shown, and what cannot be trusted is not read."""

from typing import Any

import msgspec
import pytest

from indexer.rebuild import fill
from indexer.rebuild.builder import Builder
from indexer.verify import compare, ranges
from indexer.verify.ranges import IdRange
from infra.index import indices, mapping, naming
from infra.operations import rebuild as rebuilds
from infra.operations.rebuild import Request
from tests.guarantees.index_comparison import assert_agreement
from tests.indexer.conftest import Pipeline
from tests.indexer.rebuild_steps import (
    PHASES,
    ask,
    build,
    document_in,
    index_names,
    latest,
    misses,
    next_index,
    people,
    reach,
    read_index,
    rebuild,
    states,
)


def test_rebuilt_index_equals_the_database_and_old_is_kept(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "ROWS", 30)
    people(pipeline, 100)
    gone = pipeline.consumer()
    pipeline.drain()
    pipeline.delete(gone)
    pipeline.drain()
    done = rebuild(pipeline, builder)
    assert (done.phase, done.state, done.documents, done.total, done.differences) == ("done", "live", 100, 100, 0)
    assert states(pipeline) == ["kept", "live"]
    assert read_index(pipeline) == [next_index(pipeline)]
    assert_agreement(pipeline.database)


@pytest.mark.parametrize("phase", PHASES)
def test_change_in_any_phase_is_in_the_new_index(pipeline: Pipeline, builder: Builder, phase: str) -> None:
    renamed, gone, poisoned = pipeline.consumer("Before"), pipeline.consumer(), pipeline.consumer()
    pipeline.drain()
    ask(pipeline, "rebuild")
    reach(pipeline, builder, phase)
    pipeline.rename(renamed, "After")
    pipeline.delete(gone)
    made = pipeline.consumer()
    pipeline.drain()
    assert build(pipeline, builder).phase == "done"
    assert pipeline.visible() == {renamed, made, poisoned}
    assert_agreement(pipeline.database)


def test_change_of_a_filled_row_is_in_the_new_index(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "ROWS", 2)
    renamed, gone, _, _ = people(pipeline, 4)
    pipeline.drain()
    ask(pipeline, "rebuild")
    reach(pipeline, builder, "filling")
    while latest(pipeline).documents < 2:
        builder.step()
    assert latest(pipeline).phase == "filling"
    pipeline.rename(renamed, "After")
    pipeline.delete(gone)
    pipeline.drain()
    assert document_in(pipeline, next_index(pipeline), renamed)["fullName"] == "After"
    assert document_in(pipeline, next_index(pipeline), gone)["deleted"] is True
    assert build(pipeline, builder).phase == "done"
    assert_agreement(pipeline.database)


@pytest.mark.parametrize("phase", PHASES)
def test_cancel_in_any_phase_leaves_nothing(pipeline: Pipeline, builder: Builder, phase: str) -> None:
    consumer = pipeline.consumer()
    pipeline.drain()
    ask(pipeline, "rebuild")
    reach(pipeline, builder, phase)
    ask(pipeline, "cancel")
    done = build(pipeline, builder)
    assert (done.phase, done.state) == ("cancelled", "dropped")
    assert index_names(pipeline) == read_index(pipeline) == [pipeline.index_name]
    assert pipeline.run("SELECT count(*) FROM generation_slices") == [(0,)]
    assert pipeline.visible() == {consumer}
    assert rebuild(pipeline, builder).phase == "done"


def test_second_rebuild_is_refused_while_one_is_running(pipeline: Pipeline, builder: Builder) -> None:
    ask(pipeline, "rebuild")
    with pytest.raises(rebuilds.RebuildError, match=r"already being built \(phase requested\)"):
        ask(pipeline, "rebuild")
    build(pipeline, builder)
    assert rebuild(pipeline, builder).phase == "done"
    assert states(pipeline) == ["dropped", "kept", "live"]
    assert len(index_names(pipeline)) == 2


@pytest.mark.parametrize("request_", ["cancel", "pause", "resume", "rollback", "drop"])
def test_request_without_a_rebuild_is_refused(pipeline: Pipeline, request_: Request) -> None:
    with pytest.raises(rebuilds.RebuildError):
        ask(pipeline, request_)


def test_paused_rebuild_does_nothing_and_misses_no_change(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.consumer("Before")
    pipeline.drain()
    ask(pipeline, "rebuild")
    reach(pipeline, builder, "filling")
    ask(pipeline, "pause")
    pipeline.rename(consumer, "After")
    pipeline.drain()
    assert not builder.work(5)
    assert (latest(pipeline).phase, latest(pipeline).documents) == ("filling", 0)
    ask(pipeline, "resume")
    assert build(pipeline, builder).phase == "done"
    assert_agreement(pipeline.database)


@pytest.mark.parametrize("request_", ["cancel", "pause"])
def test_cancel_or_pause_ends_a_running_verification(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch, request_: Request
) -> None:
    monkeypatch.setattr(ranges, "RANGE_ROWS", 2)
    people(pipeline, 100)
    pipeline.drain()
    ask(pipeline, "rebuild")
    reach(pipeline, builder, "verifying")
    compared: list[Any] = []
    compare_range = compare.compare_range

    def ask_meanwhile(*arguments: Any) -> Any:
        if not compared:
            ask(pipeline, request_)
        compared.append(arguments)
        return compare_range(*arguments)

    monkeypatch.setattr(compare, "compare_range", ask_meanwhile)
    builder.step()
    assert len(compared) <= 2 * compare.MAX_PENDING
    if request_ == "cancel":
        assert build(pipeline, builder).phase == "cancelled"
        assert index_names(pipeline) == read_index(pipeline) == [pipeline.index_name]
    else:
        assert not builder.step()
        assert latest(pipeline).phase == "verifying"
        ask(pipeline, "resume")
        assert build(pipeline, builder).phase == "done"
        assert_agreement(pipeline.database)


def test_verification_resumes_and_compares_each_range_once(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "RANGE_ROWS", 2)
    people(pipeline, 41)
    pipeline.drain()
    ask(pipeline, "rebuild")
    reach(pipeline, builder, "verifying")
    compared: list[IdRange] = []
    compare_range = compare.compare_range

    def fail_at_times(*arguments: Any) -> Any:
        if len(compared) % 7 == 6:
            compared.append(arguments[-1])
            raise ConnectionError
        compared.append(arguments[-1])
        return compare_range(*arguments)

    monkeypatch.setattr(compare, "compare_range", fail_at_times)
    done = build(pipeline, builder)
    assert (done.phase, done.differences) == ("done", 0)
    assert len(compared) < 3 * 21
    assert {part.after for part in compared} >= {part.last for part in compared if part.last}


def test_pauses_do_not_count_in_the_rate_of_a_rebuild(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "ROWS", 500)
    people(pipeline, 1000)
    pipeline.drain()
    ask(pipeline, "rebuild")
    reach(pipeline, builder, "filling")
    while latest(pipeline).documents < 500:
        builder.step()
    ask(pipeline, "pause")
    hour = "SET filling_at = now() - interval '3700 seconds', paused_at = now() - interval '3600 seconds'"
    pipeline.run(f"UPDATE generations {hour} WHERE phase = 'filling'")
    assert latest(pipeline).documents_per_second == 5
    ask(pipeline, "resume")
    resumed = latest(pipeline)
    assert resumed.documents_per_second == 5
    assert 90 < (resumed.remaining_seconds or 0) < 110


@pytest.mark.parametrize("fault", ["removed", "altered", "added"])
def test_index_with_differences_is_never_read(pipeline: Pipeline, builder: Builder, fault: str) -> None:
    consumer, other = pipeline.consumer(), pipeline.consumer()
    pipeline.drain()
    ask(pipeline, "rebuild")
    reach(pipeline, builder, "verifying")
    index, writer = next_index(pipeline), pipeline.writer
    lie = msgspec.json.encode({"id": consumer, "environmentId": "0", "deleted": False})
    if fault == "removed":
        writer.delete(index=index, id=consumer)
    else:
        params = {"version": str(1 << 50), "version_type": "external_gte"}
        writer.index(index=index, id=consumer if fault == "altered" else "cons_nobody", body=lie, params=params)
    done = build(pipeline, builder)
    assert (done.phase, done.differences, done.error) == ("failed", 1, "verification found 1 differences")
    assert index_names(pipeline) == read_index(pipeline) == [pipeline.index_name]
    assert pipeline.visible() == {consumer, other}


def test_rollback_and_its_reversal_lose_nothing(pipeline: Pipeline, builder: Builder) -> None:
    first = pipeline.consumer("Before")
    pipeline.drain()
    rebuild(pipeline, builder)
    pipeline.rename(first, "Between")
    second = pipeline.consumer()
    pipeline.drain()
    for index, expected in ((pipeline.index_name, ["live", "kept"]), (next_index(pipeline), ["kept", "live"])):
        ask(pipeline, "rollback")
        build(pipeline, builder)
        assert states(pipeline) == expected
        assert read_index(pipeline) == [index]
        assert_agreement(pipeline.database)
        pipeline.rename(second, f"In {index}")
        pipeline.drain()
        assert_agreement(pipeline.database)


def test_drop_deletes_the_kept_index(pipeline: Pipeline, builder: Builder) -> None:
    rebuild(pipeline, builder)
    assert len(index_names(pipeline)) == 2
    ask(pipeline, "drop")
    assert not builder.work(5)
    assert states(pipeline) == ["dropped", "live"]
    assert index_names(pipeline) == [next_index(pipeline)]
    with pytest.raises(rebuilds.RebuildError):
        ask(pipeline, "rollback")


def test_row_that_every_index_refuses_blocks_no_rebuild(pipeline: Pipeline, builder: Builder) -> None:
    healthy, poisoned = pipeline.consumer(), pipeline.consumer()
    pipeline.run("UPDATE consumers SET metadata = CAST(:m AS jsonb) WHERE id = :id", id=poisoned, m='{"a": 1e16000}')
    pipeline.drain()
    assert rebuild(pipeline, builder).phase == "done"
    assert pipeline.visible() == {healthy}
    assert len(pipeline.failures()) == 2
    assert misses(pipeline) == 0


def test_document_refused_by_the_new_index_fails_the_rebuild(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.consumer()
    pipeline.drain()
    ask(pipeline, "rebuild")
    reach(pipeline, builder, "filling")
    refuse = {"processors": [{"fail": {"message": "not this one"}}]}
    pipeline.database.search.ingest.put_pipeline(id=next_index(pipeline), body=refuse)
    pipeline.database.search.indices.put_settings(
        index=next_index(pipeline), body={"index.default_pipeline": next_index(pipeline)}
    )
    done = build(pipeline, builder)
    assert done.phase == "failed"
    assert "refused" in (done.error or "")
    assert index_names(pipeline) == [pipeline.index_name]
    assert pipeline.visible() == {consumer}


def test_field_deployed_before_its_rebuild_blocks_nothing(pipeline: Pipeline, builder: Builder) -> None:
    """The index was built by code that did not know `totalOrders`; it refuses what it does not know."""
    search, index = pipeline.database.search, pipeline.index_name
    known = {name: field for name, field in mapping.MAPPING["properties"].items() if name != "totalOrders"}
    indices.delete(search, index)
    body = {"settings": mapping.INDEX_SETTINGS, "mappings": mapping.MAPPING | {"properties": known}}
    search.indices.create(index=index, body=body | {"aliases": {naming.write_alias(index): {}}})
    indices.switch_reads(search, pipeline.database.settings.index_prefix, index)
    uuid = indices.existing(search, pipeline.database.settings.index_prefix)[index].uuid
    pipeline.run("UPDATE generations SET index_uuid = :uuid, fields = :fields", uuid=uuid, fields=list(known))
    consumer, gone = pipeline.consumer("Before"), pipeline.consumer()
    pipeline.drain()
    pipeline.rename(consumer, "After")
    pipeline.delete(gone)
    pipeline.drain()
    assert pipeline.visible() == {consumer}
    assert "totalOrders" not in document_in(pipeline, index, consumer)
    rebuild(pipeline, builder)
    pipeline.rename(consumer, "Later")
    pipeline.drain()
    # Both go on: the new one has the field, and one can go back to the other.
    assert document_in(pipeline, next_index(pipeline), consumer)["totalOrders"] == 0
    assert "totalOrders" not in document_in(pipeline, index, consumer)
    assert document_in(pipeline, index, consumer)["fullName"] == "Later"
    assert_agreement(pipeline.database)
