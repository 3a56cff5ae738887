"""Standby generations: failures do not delay the live generation, and missed changes are written later."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from indexer.drain import claims
from indexer.rebuild.builder import Builder
from infra.index import generations, naming
from infra.index.mapping import DOCUMENT_VERSION
from tests.guarantees.index_comparison import assert_index_equals_database
from tests.indexer.conftest import Pipeline
from tests.indexer.rebuild_steps import (
    advance_to,
    count_misses,
    indices_read,
    rebuild,
    run_to_end,
    second_index,
    send_request,
    stored_document,
)
from tests.waiting import wait_until


class Fault(NamedTuple):
    begin: Callable[[Pipeline, str], object]
    end: Callable[[Pipeline, str], object]


def settings(**values: Any) -> Callable[[Pipeline, str], object]:
    body = {f"index.{name}": value for name, value in values.items()}
    return lambda pipeline, index: pipeline.database.search.indices.put_settings(index=index, body=body)


def alias(act: str) -> Callable[[Pipeline, str], object]:
    def change(pipeline: Pipeline, index: str) -> None:
        one = {"index": index, "alias": naming.write_alias(index)}
        pipeline.database.search.indices.update_aliases(body={"actions": [{act: one}]})

    return change


FAULTS = {
    "rejects": Fault(settings(**{"blocks.write": True}), settings(**{"blocks.write": None})),
    # Every write waits for a shard copy without a node.
    "hangs": Fault(
        settings(auto_expand_replicas=False, number_of_replicas=1, **{"write.wait_for_active_shards": "2"}),
        settings(auto_expand_replicas="0-1", **{"write.wait_for_active_shards": "1"}),
    ),
    "has lost its alias": Fault(alias("remove"), alias("add")),
    "is newer than this worker": Fault(
        lambda p, index: p.run("UPDATE generations SET document_version = 99 WHERE index_name = :i", i=index),
        lambda p, index: p.run(
            "UPDATE generations SET document_version = :v WHERE index_name = :i", v=DOCUMENT_VERSION, i=index
        ),
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("state", ["filling", "refreshed", "kept"])
def test_failing_standby_blocks_nothing_and_catches_up(
    pipeline: Pipeline, builder: Builder, state: str, fault: Fault
) -> None:
    renamed, gone = pipeline.insert_consumer("Before"), pipeline.insert_consumer()
    pipeline.drain()
    if state == "kept":
        rebuild(pipeline, builder)
        index = pipeline.index_name
    else:
        send_request(pipeline, "rebuild")
        advance_to(pipeline, builder, "filling" if state == "filling" else "swapping")
        index = second_index(pipeline)
    fault.begin(pipeline, index)
    pipeline.rename(renamed, "After")
    pipeline.delete(gone)
    made = pipeline.insert_consumer()
    pipeline.drain()
    assert pipeline.waiting() == 0
    assert pipeline.visible() == {renamed, made}
    assert count_misses(pipeline) == 3
    fault.end(pipeline, index)
    if state == "kept":
        send_request(pipeline, "rollback")
    run_to_end(pipeline, builder)
    assert count_misses(pipeline) == 0
    assert indices_read(pipeline) == [index]
    assert pipeline.visible() == {renamed, made}
    assert_index_equals_database(pipeline.database)


def test_hanging_standby_is_skipped_for_a_while(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "filling")
    FAULTS["hangs"].begin(pipeline, second_index(pipeline))
    for name in ("First", "Second"):
        pipeline.rename(consumer, name)
        pipeline.round()
    reasons = [reason for (reason,) in pipeline.run("SELECT reason FROM generation_misses ORDER BY id")]
    assert reasons[0] != "skipped"
    assert reasons[1] == "skipped"
    assert pipeline.document(consumer)["fullName"] == "Second"


def test_index_that_missed_a_change_is_not_read(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.insert_consumer("Before")
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "swapping")
    fault = FAULTS["rejects"]
    fault.begin(pipeline, second_index(pipeline))
    pipeline.rename(consumer, "After")
    pipeline.drain()
    builder.work(1)
    assert indices_read(pipeline) == [pipeline.index_name]
    fault.end(pipeline, second_index(pipeline))
    run_to_end(pipeline, builder)
    assert indices_read(pipeline) == [second_index(pipeline)]
    assert_index_equals_database(pipeline.database)


def test_change_stays_queued_if_only_a_standby_took_it(pipeline: Pipeline, builder: Builder) -> None:
    consumer = pipeline.insert_consumer("Before")
    pipeline.drain()
    send_request(pipeline, "rebuild")
    advance_to(pipeline, builder, "filling")
    pipeline.rename(consumer, "After")
    FAULTS["rejects"].begin(pipeline, pipeline.index_name)
    with pytest.raises(Exception, match="403"):
        pipeline.round()
    wait_until(lambda: stored_document(pipeline, second_index(pipeline), consumer), what="the standby's document")
    assert pipeline.waiting() == 1
    FAULTS["rejects"].end(pipeline, pipeline.index_name)
    pipeline.drain()
    assert pipeline.document(consumer)["fullName"] == "After"


def test_drain_that_waited_for_a_state_change_sees_it(pipeline: Pipeline) -> None:
    """With the state read before the wait, the drain would write to an index without readers."""

    def read_targets() -> list[str]:
        with pipeline.database.engine.begin() as connection:
            return [generation.state for generation in claims.targets(connection)]

    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with ThreadPoolExecutor(1) as pool, pipeline.database.engine.connect() as connection:
        with connection.begin():
            connection.execute(generations.LOCK_BARRIER)
            connection.execute(sa.text("UPDATE generations SET state = 'kept'"))
            targets = pool.submit(read_targets)
            wait_until(lambda: connection.execute(waiting).scalar_one(), what="the drain to wait")
        assert targets.result() == ["kept"]
