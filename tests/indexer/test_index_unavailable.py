"""While the index is not available, the drain counts no attempt against a document, and loses nothing."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest
from opensearchpy.exceptions import OpenSearchException

from indexer.drain import claims
from indexer.drain.bulk import IndexUnavailable
from indexer.drain.round import drain_round
from infra.index import naming
from infra.index.client import open_writer
from tests.indexer.conftest import Pipeline

FULL = {"index.blocks.read_only_allow_delete": True}
"""The block set by OpenSearch itself if the disk is nearly full."""


class Fault(NamedTuple):
    begin: Callable[[Pipeline], object]
    end: Callable[[Pipeline], object]


def block(value: bool | None) -> Callable[[Pipeline], object]:  # noqa: FBT001 (the setting's value)
    settings = dict.fromkeys(FULL, value)
    return lambda pipeline: pipeline.database.search.indices.put_settings(index=pipeline.index_name, body=settings)


def alias(act: str) -> Callable[[Pipeline], object]:
    def change(pipeline: Pipeline) -> None:
        one = {"index": pipeline.index_name, "alias": naming.write_alias(pipeline.index_name)}
        pipeline.database.search.indices.update_aliases(body={"actions": [{act: one}]})

    return change


FAULTS = {
    "missing alias": Fault(alias("remove"), alias("add")),
    "closed index": Fault(
        lambda p: p.database.search.indices.close(index=p.index_name),
        lambda p: p.database.search.indices.open(index=p.index_name),
    ),
    "full disk": Fault(block(True), block(None)),  # noqa: FBT003 (the setting's value)
    "no live generation": Fault(
        lambda p: p.run("UPDATE generations SET state = 'kept'"),
        lambda p: p.run("UPDATE generations SET state = 'live'"),
    ),
    "newer generation": Fault(
        lambda p: p.run("UPDATE generations SET document_version = document_version + 1"),
        lambda p: p.run("UPDATE generations SET document_version = document_version - 1"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_unavailable_index_parks_and_loses_nothing(pipeline: Pipeline, fault: Fault) -> None:
    changed, gone = pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.drain()
    pipeline.rename(changed, "Changed")
    pipeline.delete(gone)
    fault.begin(pipeline)
    for _ in range(claims.MAX_ATTEMPTS + 1):
        with pytest.raises((IndexUnavailable, OpenSearchException)):
            pipeline.round()
    assert pipeline.failures() == [(0, False, None)] * 2
    fault.end(pipeline)
    pipeline.drain()
    assert pipeline.visible() == {changed}
    assert pipeline.document(changed)["fullName"] == "Changed"
    assert pipeline.waiting() == 0


def test_opensearch_away_parks_and_loses_nothing(pipeline: Pipeline) -> None:
    consumer = pipeline.insert_consumer()
    unreachable = msgspec.structs.replace(pipeline.database.settings, opensearch_url="http://127.0.0.1:9")
    writer = open_writer(unreachable)
    for _ in range(claims.MAX_ATTEMPTS + 1):
        with pytest.raises(OpenSearchException), pipeline.database.engine.connect() as connection:
            drain_round(connection, writer)
    writer.close()
    assert pipeline.failures() == [(0, False, None)]
    pipeline.drain()
    assert pipeline.visible() == {consumer}


def test_missing_index_is_never_created_without_its_mapping(pipeline: Pipeline) -> None:
    """This holds with `action.auto_create_index`, the default of OpenSearch."""
    consumer = pipeline.insert_consumer()
    cluster, name = pipeline.database.search.cluster, naming.write_alias(pipeline.index_name)
    alias("remove")(pipeline)
    cluster.put_settings(body={"transient": {"action.auto_create_index": True}})
    try:
        with pytest.raises(IndexUnavailable):
            pipeline.round()
        assert not pipeline.database.search.indices.exists(index=name)
    finally:
        cluster.put_settings(body={"transient": {"action.auto_create_index": None}})
        if pipeline.database.search.indices.exists(index=name):
            pipeline.database.search.indices.delete(index=name)
    alias("add")(pipeline)
    pipeline.drain()
    assert pipeline.visible() == {consumer}


@pytest.mark.parametrize("target", ["index", "alias"])
def test_partly_unavailable_index_counts_no_attempt(pipeline: Pipeline, target: str) -> None:
    """As under overload: 429, or 404 for a missing alias, beside accepted documents."""
    healthy, refused = pipeline.insert_consumer("There"), pipeline.insert_consumer("Elsewhere")
    client, index, alias_name = pipeline.database.search, f"{pipeline.index_name}-full", f"{pipeline.index_name}-away"
    client.indices.create(index=index, body={"aliases": {alias_name: {}}, "settings": FULL})
    redirect = {
        "field": "_index",
        "value": index if target == "index" else alias_name,
        "if": "ctx.fullName == 'Elsewhere'",
    }
    client.ingest.put_pipeline(id=index, body={"processors": [{"set": redirect}]})
    try:
        client.indices.put_settings(index=pipeline.index_name, body={"index.default_pipeline": index})
        for _ in range(claims.MAX_ATTEMPTS + 1):
            with pytest.raises(IndexUnavailable, match="404" if target == "index" else "429"):
                pipeline.round()
    finally:
        client.indices.put_settings(index=pipeline.index_name, body={"index.default_pipeline": None})
        client.indices.delete(index=index)
        client.ingest.delete_pipeline(id=index)
    assert pipeline.failures() == [(0, False, None)] * 2
    pipeline.drain()
    assert pipeline.visible() == {healthy, refused}
