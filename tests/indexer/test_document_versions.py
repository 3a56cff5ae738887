"""An index keeps the document version of the code that built it, whichever release writes it."""

import json
from typing import LiteralString

from indexer.rebuild.builder import Builder
from infra.index.conversion import FORMER_VERSION
from tests.indexer.comparison import compare_index
from tests.indexer.conftest import Pipeline
from tests.indexer.rebuild_steps import (
    count_misses,
    generation_states,
    rebuild,
    run_to_end,
    second_index,
    send_request,
    stored_document,
)

METADATA = json.dumps({"note": "needle in hay", "day": "1990-12-31", "numbers": [1, 1, 2]})


def set_metadata(pipeline: Pipeline, consumer: str, note: str) -> None:
    metadata = json.dumps(json.loads(METADATA) | {"more": note})
    update: LiteralString = "UPDATE consumers SET metadata = CAST(:metadata AS jsonb) WHERE id = :id"
    pipeline.run(update, metadata=metadata, id=consumer)


def form_of(pipeline: Pipeline, index: str, consumer: str) -> str:
    """Return the document version of a stored document, as the key of its whole name shows."""
    return "present" if ".zoe lee" in stored_document(pipeline, index, consumer)["forms"] else "former"


def built_by_the_release_before(pipeline: Pipeline) -> str:
    """Let the live index be of the former document version, and return a consumer in it."""
    pipeline.run("UPDATE generations SET document_version = :version", version=FORMER_VERSION)
    consumer = pipeline.insert_consumer("Zoë-Lee")
    set_metadata(pipeline, consumer, "first")
    pipeline.drain()
    return consumer


def test_drain_writes_the_version_of_the_live_index(pipeline: Pipeline) -> None:
    consumer = built_by_the_release_before(pipeline)
    assert form_of(pipeline, pipeline.index_name, consumer) == "former"
    assert compare_index(pipeline).causes == {}


def test_document_of_the_other_version_is_a_difference(pipeline: Pipeline) -> None:
    """The release before wrote its own version to an index of any version."""
    consumer = built_by_the_release_before(pipeline)
    pipeline.run("UPDATE generations SET document_version = document_version + 1")
    assert compare_index(pipeline).causes == {consumer: "content"}


def test_each_index_keeps_its_version_until_a_rollback_and_after(pipeline: Pipeline, builder: Builder) -> None:
    consumer = built_by_the_release_before(pipeline)
    assert rebuild(pipeline, builder).phase == "done"
    set_metadata(pipeline, consumer, "second")
    pipeline.drain()
    forms = {index: form_of(pipeline, index, consumer) for index in (pipeline.index_name, second_index(pipeline))}
    assert forms == {pipeline.index_name: "former", second_index(pipeline): "present"}
    pipeline.run("""
        INSERT INTO generation_misses (generation_id, environment_id, consumer_id, version, reason)
        SELECT g.id, c.environment_id, c.id, c.version, 'a test' FROM generations g, consumers c
        WHERE g.state = 'kept'""")
    send_request(pipeline, "rollback")
    run_to_end(pipeline, builder)
    assert (generation_states(pipeline), count_misses(pipeline)) == (["live", "kept"], 0)
    assert form_of(pipeline, pipeline.index_name, consumer) == "former"
    assert compare_index(pipeline).causes == {}
