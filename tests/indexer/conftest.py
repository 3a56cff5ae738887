"""A database without workers: only the test drains its outbox."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString, NamedTuple

import msgspec
import pytest
import sqlalchemy as sa
from opensearchpy import OpenSearch
from redis import Redis

from indexer.drain import claims
from indexer.drain.round import Round, drain_round
from indexer.rebuild.builder import Builder
from infra.database import installation
from infra.index import naming
from infra.index.client import open_writer
from infra.settings import Settings
from tests.service import Database

FILL_OUTBOX: LiteralString = """
    INSERT INTO outbox (environment_id, consumer_id, version, lane)
    SELECT env, 'cons_' || lpad(
            (CAST(env AS bigint) * 1000000 + n + CASE :lane WHEN 'bulk' THEN 500000 ELSE 0 END)::text, 26, '0'),
        1, :lane
    FROM generate_series(CAST(:first AS int), :last) AS env, generate_series(1, :each) AS n"""


class Pipeline(NamedTuple):
    """An environment, with the database and the writing client of a drain."""

    database: Database
    writer: OpenSearch
    environment: int

    @property
    def routing(self) -> str:
        """The routing value of the environment's documents."""
        return naming.routing(self.environment)

    @property
    def index_name(self) -> str:
        return naming.index_name(self.database.settings.index_prefix, 1)

    def run(self, statement: LiteralString, **values: Any) -> Any:
        """Run a statement in its own transaction, and return the rows."""
        with self.database.engine.begin() as connection:
            result = connection.execute(sa.text(statement), {"e": self.environment} | values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def insert_consumer(self, name: str = "A Consumer") -> str:
        insert: LiteralString = "INSERT INTO consumers (environment_id, full_name) VALUES (:e, :name) RETURNING id"
        return str(self.run(insert, name=name)[0][0])

    def rename(self, consumer_id: str, name: str) -> None:
        self.run("UPDATE consumers SET full_name = :name WHERE id = :id", id=consumer_id, name=name)

    def delete(self, consumer_id: str) -> None:
        self.run("DELETE FROM consumers WHERE id = :id", id=consumer_id)

    def version(self, consumer_id: str) -> int:
        return int(self.run("SELECT version FROM consumers WHERE id = :id", id=consumer_id)[0][0])

    def round(self, lane: str = "live", rows: int = claims.ROWS) -> Round:
        with self.database.engine.connect() as connection:
            return drain_round(connection, self.writer, lane, rows)

    def drain(self) -> None:
        """Run rounds until both lanes are empty."""
        while self.round("live").rows or self.round("bulk").rows:
            pass

    def fill_outbox(self, *, lane: str, first: int, last: int, each: int) -> None:
        """Append `each` outbox rows for every environment id from `first` to `last`; the consumers do not exist."""
        self.run(FILL_OUTBOX, lane=lane, first=first, last=last, each=each)

    def waiting(self) -> int:
        return int(self.run("SELECT count(*) FROM outbox")[0][0])

    def failures(self) -> list[tuple[int, bool, str | None]]:
        """Return attempts, whether parked, and error of every outbox row."""
        rows = self.run("SELECT attempts, parked_at IS NOT NULL, error FROM outbox ORDER BY seq")
        return [tuple(row) for row in rows]

    def source(self, consumer_id: str) -> bytes:
        """Return a document as bytes."""
        response: Any = self.writer.get(index=self.index_name, id=consumer_id, params={"routing": self.routing})
        return bytes(msgspec.json.decode(response, type=dict[str, msgspec.Raw])["_source"])

    def document(self, consumer_id: str) -> Any:
        return msgspec.json.decode(self.source(consumer_id))

    def write_by_hand(self, consumer_id: str, version: int, source: bytes) -> int:
        """Write a document as a drain would, and return the status of OpenSearch."""
        params: dict[str, Any] = {"version": version, "version_type": "external_gte", "ignore": 409}
        params["routing"] = self.routing
        response: Any = self.writer.index(index=self.index_name, id=consumer_id, body=source, params=params)
        self.writer.indices.refresh(index=self.index_name)
        return int(msgspec.json.decode(response).get("status", 200))

    def visible(self) -> set[str]:
        """Return the ids visible to readers."""
        alias = naming.read_alias(self.database.settings.index_prefix)
        hits = self.database.search.search(index=alias, body={"size": 10_000})["hits"]["hits"]
        return {hit["_id"] for hit in hits}


def owner_of(pipeline: Pipeline) -> str:
    """Return the id of the installation."""
    with pipeline.database.engine.connect() as connection:
        return installation.read(connection)


@contextmanager
def new_pipeline(database: Database) -> Iterator[Pipeline]:
    """Create an environment, and open a client of OpenSearch with the drain's settings."""
    with database.engine.begin() as connection:
        number = connection.execute(
            sa.text(
                """WITH o AS (INSERT INTO organizations (name) VALUES ('Shop') RETURNING id)
                INSERT INTO environments (organization_id, mode) SELECT id, 'live' FROM o RETURNING id"""
            )
        ).scalar_one()
    writer = open_writer(database.settings)
    try:
        yield Pipeline(database, writer, number)
    finally:
        writer.close()


@pytest.fixture
def pipeline(quiet: Database) -> Iterator[Pipeline]:
    with new_pipeline(quiet) as pipeline:
        yield pipeline


@pytest.fixture
def builder(pipeline: Pipeline) -> Iterator[Builder]:
    builder = Builder(pipeline.database.settings)
    yield builder
    builder.close()


@pytest.fixture
def settings(pipeline: Pipeline) -> Settings:
    return pipeline.database.settings


@pytest.fixture
def queue_client(settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(settings.redis_url) as client:
        yield client
