"""Blame: a refused document counts an attempt only if the index accepts other documents."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException

from indexer.drain import claims
from indexer.drain.bulk import IndexUnavailable
from infra.index import documents, naming
from infra.index.client import TextSerializer
from tests.indexer.conftest import Pipeline
from tests.indexer.proxy import Proxy
from tests.indexer.server_faults import closed_index, make_unreadable, store_unparsable_metadata

ROUNDS = claims.MAX_ATTEMPTS + 1
ATTEMPTED = [(attempt, attempt == claims.MAX_ATTEMPTS) for attempt in range(1, claims.MAX_ATTEMPTS + 1)]
BAD = "Bad Name"


def clear_retry(pipeline: Pipeline) -> None:
    pipeline.run("UPDATE outbox SET retry_at = NULL")


def attempts(pipeline: Pipeline) -> list[tuple[int, bool]]:
    return [row[:2] for row in pipeline.failures()]


def put(pipeline: Pipeline, **settings: Any) -> None:
    body = {f"index.{name.replace('__', '.')}": value for name, value in settings.items()}
    pipeline.database.search.indices.put_settings(index=pipeline.index_name, body=body)


Failure = Callable[[Pipeline], Any]


def setting(**settings: Any) -> Failure:
    @contextmanager
    def failure(pipeline: Pipeline) -> Iterator[None]:
        put(pipeline, **settings)
        try:
            yield
        finally:
            put(pipeline, **dict.fromkeys(settings))

    return failure


@contextmanager
def strict_mapping(pipeline: Pipeline) -> Iterator[None]:
    """Point the write alias to an index with another mapping: every document is refused with 400."""
    indices, name = pipeline.database.search.indices, f"{pipeline.index_name}-strict"
    indices.create(index=name, body={"mappings": {"dynamic": "strict", "properties": {"id": {"type": "keyword"}}}})
    alias = naming.write_alias(pipeline.index_name)

    def move_alias(source: str, target: str) -> None:
        actions = [{act: {"index": index, "alias": alias}} for act, index in (("remove", source), ("add", target))]
        indices.update_aliases(body={"actions": actions})

    move_alias(pipeline.index_name, name)
    try:
        yield
    finally:
        move_alias(name, pipeline.index_name)
        indices.delete(index=name)


@contextmanager
def circuit_breaker(pipeline: Pipeline, limit: str = "1b") -> Iterator[None]:
    """Make OpenSearch refuse requests above a size with 429, as if memory were short."""
    cluster, name = pipeline.database.search.cluster, "network.breaker.inflight_requests.limit"
    cluster.put_settings(body={"transient": {name: limit}})
    try:
        yield
    finally:
        cluster.put_settings(body={"transient": {name: None}})


@contextmanager
def ingest_failure(pipeline: Pipeline, condition: str = "true") -> Iterator[None]:
    """Make OpenSearch fail with 500 for documents with a condition, by default for all."""
    ingest, name = pipeline.database.search.ingest, pipeline.index_name
    ingest.put_pipeline(id=name, body={"processors": [{"fail": {"if": condition, "message": "stumbled"}}]})
    put(pipeline, default_pipeline=name)
    try:
        yield
    finally:
        put(pipeline, default_pipeline=None)
        ingest.delete_pipeline(id=name)


@contextmanager
def hanging(pipeline: Pipeline) -> Iterator[Pipeline]:
    with Proxy(pipeline.database.settings.opensearch_url) as proxy:
        proxy.open(hanging=True)
        writer = OpenSearch(proxy.address, timeout=0.2, max_retries=0, serializer=TextSerializer())
        yield pipeline._replace(writer=writer)
        writer.close()


FAILURES: dict[str, Failure] = {
    "another mapping": strict_mapping,
    "missing ingest pipeline": setting(default_pipeline="nowhere"),
    "failing ingest pipeline": ingest_failure,
    "write block": setting(blocks__write=True),
    "read only": setting(blocks__read_only=True),
    "full disk": setting(blocks__read_only_allow_delete=True),
    "closed index": closed_index,
    "too many requests": circuit_breaker,
    "no answer": hanging,
}


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_unavailable_index_counts_no_attempt_for_documents(pipeline: Pipeline, failure: Failure, number: int) -> None:
    changed = [pipeline.insert_consumer() for _ in range(number)]
    other = pipeline.insert_consumer()
    pipeline.drain()
    for consumer in changed:
        pipeline.rename(consumer, "Changed")
    with failure(pipeline) as with_writer:
        for _ in range(ROUNDS):
            with pytest.raises((IndexUnavailable, OpenSearchException)):
                (with_writer or pipeline).round()
    assert attempts(pipeline) == [(0, False)] * number
    pipeline.drain()
    assert pipeline.waiting() == 0
    assert pipeline.visible() == {*changed, other}
    assert [pipeline.document(consumer)["fullName"] for consumer in changed] == ["Changed"] * number


def test_document_refused_alone_counts_an_attempt(pipeline: Pipeline) -> None:
    poisoned, healthy = pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.drain()
    store_unparsable_metadata(pipeline, poisoned)
    for attempt in ATTEMPTED:
        pipeline.round()
        assert attempts(pipeline) == [attempt]
        clear_retry(pipeline)
    assert pipeline.round().rows == 0
    assert pipeline.visible() == {poisoned, healthy}


@pytest.mark.parametrize("alone", [False, True])
def test_document_failing_with_500_is_parked_and_others_pass(pipeline: Pipeline, alone: bool) -> None:  # noqa: FBT001 (a parameter)
    bad, other = pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.drain()
    with ingest_failure(pipeline, f"ctx.fullName == '{BAD}'"):
        pipeline.rename(bad, BAD)
        for attempt in ATTEMPTED:
            if not alone:
                pipeline.rename(other, f"Attempt {attempt[0]}")
            pipeline.round()
            assert attempts(pipeline) == [attempt]
            clear_retry(pipeline)
    assert "stumbled" in (pipeline.failures()[0][2] or "")
    assert pipeline.document(other)["fullName"] == ("A Consumer" if alone else f"Attempt {claims.MAX_ATTEMPTS}")
    # After the fix the document is indexed like any other.
    pipeline.rename(bad, "Good Name")
    pipeline.drain()
    assert pipeline.waiting() == 0


def test_first_documents_count_no_attempt_in_a_failing_index(pipeline: Pipeline) -> None:
    pipeline.insert_consumer()
    with ingest_failure(pipeline), pytest.raises(IndexUnavailable):
        pipeline.round()
    assert attempts(pipeline) == [(0, False)]


def test_document_too_large_counts_an_attempt_once_alone(pipeline: Pipeline) -> None:
    """OpenSearch refuses the whole request with 429, as under overload."""
    large, other, _ = pipeline.insert_consumer(), pipeline.insert_consumer(), pipeline.insert_consumer("Untouched")
    pipeline.drain()
    metadata = "UPDATE consumers SET metadata = jsonb_build_object('a', repeat('x', 30000)) WHERE id = :id"
    pipeline.run(metadata, id=large)
    pipeline.rename(other, "Changed")
    with circuit_breaker(pipeline, "20kb"):
        with pytest.raises(OpenSearchException):
            pipeline.round()
        assert attempts(pipeline) == [(0, False)] * 2
        pipeline.round(rows=1)
        assert attempts(pipeline) == [(1, False), (0, False)]
        pipeline.round(rows=1)
    assert pipeline.document(other)["fullName"] == "Changed"
    assert attempts(pipeline) == [(1, False)]


def test_row_that_cannot_be_rendered_is_parked_and_others_pass(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, other = pipeline.insert_consumer(), pipeline.insert_consumer()
    render = documents.document

    def stumble(row: documents.ConsumerRow, audience_ids: list[str]) -> bytes:
        if row.id == bad:
            raise ArithmeticError("no such number")
        return render(row, audience_ids)

    with monkeypatch.context() as patch:
        patch.setattr(documents, "document", stumble)
        for attempt in ATTEMPTED:
            pipeline.rename(other, f"Attempt {attempt[0]}")
            pipeline.drain()
            assert attempts(pipeline) == [attempt]
            assert pipeline.document(other)["fullName"] == f"Attempt {attempt[0]}"
            clear_retry(pipeline)
    assert pipeline.failures()[0][2] == "ArithmeticError: no such number"
    assert pipeline.visible() == {other}


def test_row_that_cannot_be_read_counts_an_attempt_once_alone(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, other = pipeline.insert_consumer(), pipeline.insert_consumer()
    with monkeypatch.context() as patch:
        make_unreadable(patch, bad)
        with pytest.raises(sa.exc.DataError):
            pipeline.round()
        assert attempts(pipeline) == [(0, False)] * 2
        pipeline.round(rows=1)
        assert attempts(pipeline) == [(1, False), (0, False)]
        pipeline.drain()
    assert pipeline.visible() == {other}
    clear_retry(pipeline)
    pipeline.drain()
    assert pipeline.waiting() == 0
