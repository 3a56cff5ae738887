"""Insert and index many consumers at once."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import psycopg
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain import bulk
from indexer.drain.bulk import Document
from infra.index import documents, naming
from infra.index.client import TextSerializer
from infra.index.documents import ConsumerRow
from infra.local.sample.consumers import Consumer
from tests.service import Database

CHUNK, SENDERS = 2_000, 2
PATIENCE_SECONDS = 120
"""Timeout of OpenSearch's requests; long, because the machine may be busy."""
COPY = f"COPY consumers (environment_id, {', '.join(Consumer._fields)}) FROM STDIN"
ROWS = sa.text(f"SELECT {documents.COLUMNS} FROM consumers c WHERE environment_id = :environment_id")
LIVE = sa.text("SELECT index_name FROM generations WHERE state = 'live'")
DELETE_OUTBOX_ROWS = sa.text("DELETE FROM outbox WHERE environment_id = :environment_id")
COUNT = sa.text("SELECT count(*) FROM consumers WHERE environment_id = :environment_id")


def load(database: Database, environment_id: int, people: Iterable[Consumer]) -> None:
    """Insert and index consumers as a drain does: same documents, requests and versions, refresh before delete.

    Everything happens in one transaction, so that no drain sees the outbox rows; rounds of a thousand rows would take
    several times as long.
    """
    values = {"environment_id": environment_id}
    address, text = database.settings.opensearch_url, TextSerializer()
    with (
        database.engine.begin() as connection,
        closing(OpenSearch(address, timeout=PATIENCE_SECONDS, max_retries=0, serializer=text)) as client,
    ):
        connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        raw = connection.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        with raw.cursor() as cursor, cursor.copy(COPY.encode()) as copy:
            for person in people:
                copy.write_row((environment_id, *person))
        index = connection.execute(LIVE).scalar_one()
        send = partial(bulk.write, client, naming.write_alias(index))
        with ThreadPoolExecutor(SENDERS) as pool:
            rows = connection.execute(ROWS, values, execution_options={"yield_per": CHUNK}).partitions()
            sent = [pool.submit(send, [_document(row) for row in part]) for part in rows]
        assert all(item.is_indexed for sent_part in sent for item in sent_part.result())
        bulk.refresh(client, index)
        connection.execute(DELETE_OUTBOX_ROWS, values)


def assert_complete(database: Database, environment_id: int, expected: int) -> None:
    """Assert the number of rows and of visible documents, and an empty outbox."""
    body = {"query": {"term": {"environmentId": str(environment_id)}}}
    shown = database.search.count(index=naming.read_alias(database.settings.index_prefix), body=body)["count"]
    with database.engine.connect() as connection:
        assert connection.execute(COUNT, {"environment_id": environment_id}).scalar_one() == shown == expected
    assert not database.waiting(environment_id)


def _document(row: Sequence[Any]) -> Document:
    consumer = ConsumerRow._make(row)
    return Document(consumer.environment_id, consumer.id, consumer.version, documents.document(consumer, []))
