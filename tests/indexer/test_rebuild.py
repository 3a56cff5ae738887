"""A rebuild, step by step: no change is lost, and no incomplete or wrong index is read."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from indexer.rebuild import fill, transitions
from indexer.rebuild.builder import Builder
from indexer.verify import compare, ranges
from indexer.verify.ranges import IdRange
from infra.index import indices, mapping, naming
from infra.operations import rebuild as rebuilds
from infra.operations.rebuild import Rebuild, Request
from tests.guarantees.index_comparison import assert_index_equals_database
from tests.indexer.conftest import Pipeline
from tests.indexer.rebuild_steps import (
    PHASES,
    advance_to,
    count_misses,
    generation_states,
    index_names,
    indices_read,
    insert_consumers,
    latest_rebuild,
    rebuild,
    run_to_end,
    second_index,
    send_request,
    stored_document,
)
from tests.waiting import wait_until


def test_rebuilt_index_equals_the_database_and_old_is_kept(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "SLICE_ROWS", 30)
    insert_consumers(pipeline, 100)
    gone = pipeline.insert_consumer()
    pipeline.drain()
    pipeline.delete(gone)
    pipeline.drain()
    done = rebuild(pipeline, builder)
    assert (done.phase, done.state, done.documents, done.total, done.differences) == ("done", "live", 100, 100, 0)
    assert generation_states(pipeline) == ["kept", "live"]
    assert indices_read(pipeline) == [second_index(pipeline)]
    assert_index_equals_database(pipeline.database)


def test_senders_of_a_rebuild_keep_their_connections(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fill, "REQUEST_BYTES", 2_000)
    insert_consumers(pipeline, 500)
    pipeline.drain()
    rebuild(pipeline, builder)
    assert "Connection pool is full" not in caplog.text


@pytest.mark.parametrize("phase", PHASES)
def test_change_in_any_phase_is_in_the_new_index(pipeline: Pipeline, builder: Builder, phase: str) -> None:
    renamed, gone, poisoned = pipeline.insert_consumer("Before"), pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, phase)
    pipeline.rename(renamed, "After")
    pipeline.delete(gone)
    made = pipeline.insert_consumer()
    pipeline.drain()
    assert run_to_end(pipeline, builder).phase == "done"
    assert pipeline.visible() == {renamed, made, poisoned}
    assert_index_equals_database(pipeline.database)


def test_change_of_a_filled_row_is_in_the_new_index(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "SLICE_ROWS", 2)
    renamed, gone, _, _ = insert_consumers(pipeline, 4)
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "filling")
    while latest_rebuild(pipeline).documents < 2:
        builder.step()
    assert latest_rebuild(pipeline).phase == "filling"
    pipeline.rename(renamed, "After")
    pipeline.delete(gone)
    pipeline.drain()
    assert stored_document(pipeline, second_index(pipeline), renamed)["fullName"] == "After"
    assert stored_document(pipeline, second_index(pipeline), gone)["deleted"] is True
    assert run_to_end(pipeline, builder).phase == "done"
    assert_index_equals_database(pipeline.database)


def test_unknown_phase_is_an_error_and_not_a_busy_loop(pipeline: Pipeline, builder: Builder) -> None:
    send_request(pipeline, "rebuild")
    pipeline.run("ALTER TABLE generations DROP CONSTRAINT generations_phase_check")
    pipeline.run("UPDATE generations SET phase = 'unknown' WHERE state = 'filling'")
    with pytest.raises(AssertionError, match="unknown"):
        builder.step()
    assert not builder.work(5)


@pytest.mark.parametrize("phase", PHASES)
def test_cancel_in_any_phase_leaves_nothing(pipeline: Pipeline, builder: Builder, phase: str) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, phase)
    send_request(pipeline, "cancel")
    done = run_to_end(pipeline, builder)
    assert (done.phase, done.state) == ("cancelled", "dropped")
    assert index_names(pipeline) == indices_read(pipeline) == [pipeline.index_name]
    assert pipeline.run("SELECT count(*) FROM generation_slices") == [(0,)]
    assert pipeline.visible() == {consumer}
    assert rebuild(pipeline, builder).phase == "done"


def test_second_rebuild_is_refused_while_one_is_running(pipeline: Pipeline, builder: Builder) -> None:
    send_request(pipeline, "rebuild")
    with pytest.raises(rebuilds.RebuildError, match=r"already being built \(phase requested\)"):
        send_request(pipeline, "rebuild")
    run_to_end(pipeline, builder)
    assert rebuild(pipeline, builder).phase == "done"
    assert generation_states(pipeline) == ["dropped", "kept", "live"]
    assert len(index_names(pipeline)) == 2


@pytest.mark.parametrize("request_", ["cancel", "pause", "resume", "rollback", "drop"])
def test_request_without_a_rebuild_is_refused(pipeline: Pipeline, request_: Request) -> None:
    with pytest.raises(rebuilds.RebuildError):
        send_request(pipeline, request_)


def test_paused_rebuild_does_nothing_and_misses_no_change(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.insert_consumer("Before")
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "filling")
    send_request(pipeline, "pause")
    pipeline.rename(consumer, "After")
    pipeline.drain()
    assert not builder.work(5)
    assert (latest_rebuild(pipeline).phase, latest_rebuild(pipeline).documents) == ("filling", 0)
    send_request(pipeline, "resume")
    assert run_to_end(pipeline, builder).phase == "done"
    assert_index_equals_database(pipeline.database)


@pytest.mark.parametrize("request_", ["cancel", "pause"])
def test_request_during_a_swap_waits_and_is_refused(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch, request_: Request
) -> None:
    """An accepted request would stay without effect: the new index goes live."""
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "swapping")
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    answers: list[Future[Rebuild]] = []
    switch_reads = indices.switch_reads
    with ThreadPoolExecutor(1) as pool:

        def switch_while_requested(*arguments: Any) -> None:
            answers.append(pool.submit(send_request, pipeline, request_))
            wait_until(lambda: answers[0].done() or pipeline.run(waiting), what="the request to wait")
            switch_reads(*arguments)

        monkeypatch.setattr(indices, "switch_reads", switch_while_requested)
        done = run_to_end(pipeline, builder)
        with pytest.raises(rebuilds.RebuildError):
            answers[0].result()
    assert (done.state, done.phase, done.is_paused, done.wanted) == ("live", "done", False, None)


def test_rebuild_left_paused_by_an_earlier_release_is_rolled_back(pipeline: Pipeline, builder: Builder) -> None:
    rebuild(pipeline, builder)
    pipeline.run("UPDATE generations SET is_paused = true, paused_at = present() WHERE state IN ('live', 'kept')")
    send_request(pipeline, "rollback")
    run_to_end(pipeline, builder)
    assert generation_states(pipeline) == ["live", "kept"]
    assert pipeline.run("SELECT is_paused FROM generations WHERE state = 'live'") == [(False,)]


@pytest.mark.parametrize("request_", ["cancel", "pause"])
def test_cancel_or_pause_ends_a_running_verification(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch, request_: Request
) -> None:
    monkeypatch.setattr(ranges, "RANGE_ROWS", 2)
    insert_consumers(pipeline, 100)
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "verifying")
    compared: list[Any] = []
    compare_range = compare.compare_range

    def request_and_compare(*arguments: Any) -> Any:
        if not compared:
            send_request(pipeline, request_)
        compared.append(arguments)
        return compare_range(*arguments)

    monkeypatch.setattr(compare, "compare_range", request_and_compare)
    builder.step()
    assert len(compared) <= 2 * compare.MAX_PENDING
    if request_ == "cancel":
        assert run_to_end(pipeline, builder).phase == "cancelled"
        assert index_names(pipeline) == indices_read(pipeline) == [pipeline.index_name]
    else:
        assert not builder.step()
        assert latest_rebuild(pipeline).phase == "verifying"
        send_request(pipeline, "resume")
        assert run_to_end(pipeline, builder).phase == "done"
        assert_index_equals_database(pipeline.database)


def test_verification_resumes_and_compares_each_range_once(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "RANGE_ROWS", 2)
    insert_consumers(pipeline, 41)
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "verifying")
    compared: list[IdRange] = []
    compare_range = compare.compare_range

    def fail_sometimes(*arguments: Any) -> Any:
        if len(compared) % 7 == 6:
            compared.append(arguments[-1])
            raise ConnectionError
        compared.append(arguments[-1])
        return compare_range(*arguments)

    monkeypatch.setattr(compare, "compare_range", fail_sometimes)
    done = run_to_end(pipeline, builder)
    assert (done.phase, done.differences) == ("done", 0)
    assert len(compared) < 3 * 21
    assert {part.after for part in compared} >= {part.last for part in compared if part.last}


def test_pauses_do_not_count_in_the_rate_of_a_rebuild(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "SLICE_ROWS", 500)
    insert_consumers(pipeline, 1000)
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "filling")
    while latest_rebuild(pipeline).documents < 500:
        builder.step()
    send_request(pipeline, "pause")
    hour = "SET filling_at = now() - interval '3700 seconds', paused_at = now() - interval '3600 seconds'"
    pipeline.run(f"UPDATE generations {hour} WHERE phase = 'filling'")
    assert latest_rebuild(pipeline).documents_per_second == 5
    send_request(pipeline, "resume")
    resumed = latest_rebuild(pipeline)
    assert resumed.documents_per_second == 5
    assert 90 < (resumed.remaining_seconds or 0) < 110


@pytest.mark.parametrize("fault", ["removed", "altered", "added"])
def test_index_with_differences_is_never_read(pipeline: Pipeline, builder: Builder, fault: str) -> None:
    consumer, other = pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "verifying")
    index, writer = second_index(pipeline), pipeline.writer
    lie = msgspec.json.encode({"id": consumer, "environmentId": "0", "deleted": False})
    if fault == "removed":
        writer.delete(index=index, id=consumer)
    else:
        params = {"version": str(1 << 50), "version_type": "external_gte"}
        writer.index(index=index, id=consumer if fault == "altered" else "cons_nobody", body=lie, params=params)
    done = run_to_end(pipeline, builder)
    assert (done.phase, done.differences, done.error) == ("failed", 1, "verification found 1 differences")
    assert index_names(pipeline) == indices_read(pipeline) == [pipeline.index_name]
    assert pipeline.visible() == {consumer, other}


def test_kill_before_a_faulty_index_is_dropped_swaps_nothing(
    pipeline: Pipeline, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def kill(*_: Any) -> None:
        raise KilledError

    def take_all_steps() -> None:
        while builder.step():
            pass

    consumer = pipeline.insert_consumer()
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "verifying")
    pipeline.writer.delete(index=second_index(pipeline), id=consumer)
    with monkeypatch.context() as patch:
        patch.setattr(transitions, "abandon", kill)
        with pytest.raises(KilledError):
            take_all_steps()
    done = run_to_end(pipeline, builder)
    assert done.phase == "failed"
    assert done.differences
    assert index_names(pipeline) == indices_read(pipeline) == [pipeline.index_name]


def test_rollback_and_its_reversal_lose_nothing(pipeline: Pipeline, builder: Builder) -> None:
    first = pipeline.insert_consumer("Before")
    pipeline.drain()
    rebuild(pipeline, builder)
    pipeline.rename(first, "Between")
    second = pipeline.insert_consumer()
    pipeline.drain()
    for index, expected in ((pipeline.index_name, ["live", "kept"]), (second_index(pipeline), ["kept", "live"])):
        send_request(pipeline, "rollback")
        run_to_end(pipeline, builder)
        assert generation_states(pipeline) == expected
        assert indices_read(pipeline) == [index]
        assert_index_equals_database(pipeline.database)
        pipeline.rename(second, f"In {index}")
        pipeline.drain()
        assert_index_equals_database(pipeline.database)


def test_drop_deletes_the_kept_index(pipeline: Pipeline, builder: Builder) -> None:
    rebuild(pipeline, builder)
    assert len(index_names(pipeline)) == 2
    send_request(pipeline, "drop")
    assert not builder.work(5)
    assert generation_states(pipeline) == ["dropped", "live"]
    assert index_names(pipeline) == [second_index(pipeline)]
    with pytest.raises(rebuilds.RebuildError):
        send_request(pipeline, "rollback")


def test_row_that_every_index_refuses_blocks_no_rebuild(pipeline: Pipeline, builder: Builder) -> None:
    healthy, poisoned = pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.run("UPDATE consumers SET metadata = CAST(:m AS jsonb) WHERE id = :id", id=poisoned, m='{"a": 1e16000}')
    pipeline.drain()
    assert rebuild(pipeline, builder).phase == "done"
    assert pipeline.visible() == {healthy}
    assert len(pipeline.failures()) == 2
    assert count_misses(pipeline) == 0


def test_document_refused_by_the_new_index_fails_the_rebuild(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "filling")
    refuse = {"processors": [{"fail": {"message": "not this one"}}]}
    pipeline.database.search.ingest.put_pipeline(id=second_index(pipeline), body=refuse)
    pipeline.database.search.indices.put_settings(
        index=second_index(pipeline), body={"index.default_pipeline": second_index(pipeline)}
    )
    done = run_to_end(pipeline, builder)
    assert done.phase == "failed"
    assert "refused" in (done.error or "")
    assert index_names(pipeline) == [pipeline.index_name]
    assert pipeline.visible() == {consumer}


def test_field_deployed_before_its_rebuild_blocks_nothing(pipeline: Pipeline, builder: Builder) -> None:
    """The old index was built without `totalOrders`, and refuses unknown fields."""
    search, index = pipeline.database.search, pipeline.index_name
    old_fields = {name: field for name, field in mapping.MAPPING["properties"].items() if name != "totalOrders"}
    indices.delete(search, index)
    body = {"settings": mapping.INDEX_SETTINGS, "mappings": mapping.MAPPING | {"properties": old_fields}}
    search.indices.create(index=index, body=body | {"aliases": {naming.write_alias(index): {}}})
    indices.switch_reads(search, pipeline.database.settings.index_prefix, index)
    uuid = indices.existing(search, pipeline.database.settings.index_prefix)[index].uuid
    pipeline.run("UPDATE generations SET index_uuid = :uuid, fields = :fields", uuid=uuid, fields=list(old_fields))
    consumer, gone = pipeline.insert_consumer("Before"), pipeline.insert_consumer()
    pipeline.drain()
    pipeline.rename(consumer, "After")
    pipeline.delete(gone)
    pipeline.drain()
    assert pipeline.visible() == {consumer}
    assert "totalOrders" not in stored_document(pipeline, index, consumer)
    rebuild(pipeline, builder)
    pipeline.rename(consumer, "Later")
    pipeline.drain()
    # Both indices are kept current: the new index has the field, and a rollback is possible.
    assert stored_document(pipeline, second_index(pipeline), consumer)["totalOrders"] == 0
    assert "totalOrders" not in stored_document(pipeline, index, consumer)
    assert stored_document(pipeline, index, consumer)["fullName"] == "Later"
    assert_index_equals_database(pipeline.database)


@contextmanager
def three_zones(pipeline: Pipeline) -> Iterator[None]:
    """Make OpenSearch refuse every index without a copy in each of three zones."""
    cluster, awareness = pipeline.database.search.cluster, "cluster.routing.allocation.awareness"
    zones = {f"{awareness}.attributes": "zone", f"{awareness}.force.zone.values": "a,b,c", f"{awareness}.balance": True}
    cluster.put_settings(body={"transient": zones})
    try:
        yield
    finally:
        cluster.put_settings(body={"transient": dict.fromkeys(zones)})


def test_status_shows_why_an_index_cannot_be_created(pipeline: Pipeline, builder: Builder) -> None:
    send_request(pipeline, "rebuild")
    with three_zones(pipeline):
        builder.work(1)
    refused = latest_rebuild(pipeline)
    assert refused.phase == "creating"
    error = refused.error or ""
    assert error.startswith(f"OpenSearch refuses to create {second_index(pipeline)}: ")
    assert "multiple of total awareness attributes [3]" in error
    done = run_to_end(pipeline, builder)
    assert (done.phase, done.error) == ("done", None)


def test_rebuild_whose_index_cannot_be_created_can_be_cancelled(pipeline: Pipeline, builder: Builder) -> None:
    send_request(pipeline, "rebuild")
    with three_zones(pipeline):
        builder.work(1)
        send_request(pipeline, "cancel")
        assert run_to_end(pipeline, builder).phase == "cancelled"
