"""An index with several shards: where documents are, rebuilds to another number, and the checks of each shard."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest
from opensearchpy.exceptions import NotFoundError

from indexer.rebuild.builder import Builder
from indexer.rebuild.lost_index import reconcile
from indexer.verify.repair import repair
from infra.index import mapping
from infra.local.servers import LocalServers
from infra.operations import rebuild as rebuilds
from tests.guarantees.index_comparison import assert_index_equals_database
from tests.indexer.comparison import compare_index
from tests.indexer.conftest import Pipeline
from tests.indexer.rebuild_steps import PHASES, advance_to, indices_read, insert_consumers, run_to_end

# The faults of documents and the purge of tombstones, with several shards.
from tests.indexer.test_tombstones import test_only_old_tombstones_are_purged  # noqa: F401
from tests.indexer.test_verify_compare import (  # noqa: F401
    filled,
    test_all_faults_are_told_apart_in_small_ranges,
    test_index_equal_to_the_database_has_no_difference,
)
from tests.service import Database, new_database

SHARDS = 5


@pytest.fixture
def quiet(servers: LocalServers) -> Iterator[Database]:
    with new_database(servers, {"INDEX_SHARDS": str(SHARDS)}) as database:
        yield database


def documents_by_shard(pipeline: Pipeline) -> list[int]:
    """Return the number of documents in each shard."""
    search, name = pipeline.database.search, pipeline.index_name
    return [search.count(index=name, params={"preference": f"_shards:{shard}"})["count"] for shard in range(SHARDS)]


def copies(pipeline: Pipeline, consumer_id: str) -> int:
    body = {"query": {"ids": {"values": [consumer_id]}}}
    return int(pipeline.database.search.count(index=pipeline.index_name, body=body)["count"])


def start_rebuild(pipeline: Pipeline, shards: int) -> None:
    settings = msgspec.structs.replace(pipeline.database.settings, index_shards=shards)
    with pipeline.database.engine.begin() as connection:
        rebuilds.start(connection, settings)


def reconcile_index(pipeline: Pipeline, **changes: Any) -> None:
    settings = msgspec.structs.replace(pipeline.database.settings, **changes)
    reconcile(pipeline.database.engine, pipeline.database.search, settings)


def test_environment_is_in_its_shards_alone(pipeline: Pipeline) -> None:
    insert_consumers(pipeline, 100)
    pipeline.drain()
    numbers = documents_by_shard(pipeline)
    assert sum(number > 0 for number in numbers) == mapping.shards_of_environment(SHARDS) == 2
    assert sum(numbers) == 100
    routed = pipeline.database.search.count(index=pipeline.index_name, params={"routing": pipeline.routing})
    assert (routed["count"], routed["_shards"]["total"]) == (100, 2)


def test_document_without_routing_is_refused(pipeline: Pipeline) -> None:
    params: dict[str, Any] = {"ignore": 400}
    response: Any = pipeline.writer.index(index=pipeline.index_name, id="x", body=b'{"id": "x"}', params=params)
    assert b"routing_missing_exception" in response


def test_index_equals_database_after_rebuilds_to_one_shard_and_back(pipeline: Pipeline, builder: Builder) -> None:
    ids = insert_consumers(pipeline, 300)
    pipeline.drain()
    for shards in (1, SHARDS):
        start_rebuild(pipeline, shards)
        for phase in PHASES[1:]:
            advance_to(pipeline, builder, phase)
            pipeline.rename(ids.pop(), f"In {phase}")
            pipeline.delete(ids.pop())
            pipeline.insert_consumer(f"New in {phase}")
            pipeline.drain()
        assert run_to_end(pipeline, builder).phase == "done"
        assert_index_equals_database(pipeline.database)
        [live] = indices_read(pipeline)
        settings = pipeline.database.search.indices.get_settings(index=live)[live]["settings"]["index"]
        assert settings["number_of_shards"] == str(shards)
        assert pipeline.run("SELECT shards FROM generations WHERE state = 'live'") == [(shards,)]


def test_older_files_of_one_shard_are_a_lost_index(pipeline: Pipeline) -> None:
    insert_consumers(pipeline, 100)
    pipeline.drain()
    reconcile_index(pipeline)
    [(numbers,)] = pipeline.run("SELECT seen_seq_nos FROM generations")
    assert [number + 1 for number in numbers] == documents_by_shard(pipeline)
    assert pipeline.visible()
    last = max(shard for shard, number in enumerate(numbers) if number > 0)
    pipeline.run("UPDATE generations SET seen_seq_nos[:last + 1] = seen_seq_nos[:last + 1] + 1", last=last)
    reconcile_index(pipeline)
    with pytest.raises(NotFoundError):
        pipeline.visible()


def test_document_in_another_shard_is_found_and_deleted(pipeline: Pipeline) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    source, version = pipeline.source(consumer), pipeline.version(consumer)
    for number in count(1000):
        params: dict[str, Any] = {"routing": number, "version": version, "version_type": "external", "ignore": 409}
        pipeline.writer.index(index=pipeline.index_name, id=consumer, body=source, params=params | {"refresh": "true"})
        if copies(pipeline, consumer) > 1:
            break
    differences = compare_index(pipeline).differences
    assert [(difference.id, difference.cause) for difference in differences] == [(consumer, "foreign")]
    with pipeline.database.engine.begin() as connection:
        repair(connection, pipeline.writer, pipeline.index_name, differences)
    assert copies(pipeline, consumer) == 1
    assert pipeline.source(consumer) == source
    assert compare_index(pipeline).differences == []


def test_replicas_follow_the_setting(pipeline: Pipeline) -> None:
    def replicas() -> str:
        settings = pipeline.database.search.indices.get_settings(index=pipeline.index_name)
        return str(settings[pipeline.index_name]["settings"]["index"]["number_of_replicas"])

    reconcile_index(pipeline)
    assert replicas() == "0"
    reconcile_index(pipeline, index_replicas=2)
    assert replicas() == "2"
