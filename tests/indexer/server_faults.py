"""Make PostgreSQL or OpenSearch fail for a row, a document or an index."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from indexer.drain import claims
from tests.indexer.conftest import Pipeline

UNPARSABLE_METADATA = '{"a": 1e4000}'
"""JSON with a number accepted by PostgreSQL and refused by OpenSearch's parser."""


def store_unparsable_metadata(pipeline: Pipeline, consumer: str) -> None:
    """Change a consumer so that OpenSearch refuses the document."""
    update = "UPDATE consumers SET metadata = CAST(:metadata AS jsonb) WHERE id = :id"
    pipeline.run(update, id=consumer, metadata=UNPARSABLE_METADATA)


def make_unreadable(monkeypatch: pytest.MonkeyPatch, consumer: str) -> None:
    """Make the drain's query fail in PostgreSQL whenever a consumer is among the rows to read."""
    read = claims.read_consumers

    def read_consumers(connection: sa.Connection, ids: list[str]) -> dict[str, claims.StoredConsumer]:
        if consumer in ids:
            connection.execute(sa.text("SELECT 1 / 0"))
        return read(connection, ids)

    monkeypatch.setattr(claims, "read_consumers", read_consumers)


@contextmanager
def closed_index(pipeline: Pipeline) -> Iterator[None]:
    pipeline.database.search.indices.close(index=pipeline.index_name)
    yield
    pipeline.database.search.indices.open(index=pipeline.index_name)
