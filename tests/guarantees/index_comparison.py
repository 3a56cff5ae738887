"""Compare the index with the database: by id, version and content, with no further document."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from infra.index import documents, naming
from infra.index.client import open_writer
from infra.index.documents import ConsumerRow
from tests.service import Database
from tests.waiting import wait_until

PAGE = 5000
ROWS = sa.text(f"SELECT {documents.COLUMNS}, {documents.AUDIENCE_IDS} FROM consumers c")
LIVE = sa.text("SELECT index_name FROM generations WHERE state = 'live'")
OUTBOX = sa.text("SELECT parked_at IS NOT NULL, count(*), min(error) FROM outbox GROUP BY 1")


class _State(msgspec.Struct):
    deleted: bool


class IndexedDocument(msgspec.Struct, rename={"id": "_id", "version": "_version", "source": "_source"}):
    """A document in the index."""

    id: str
    version: int
    source: msgspec.Raw = msgspec.Raw()

    @property
    def is_tombstone(self) -> bool:
        return msgspec.json.decode(self.source, type=_State).deleted


class _Hits(msgspec.Struct):
    hits: list[IndexedDocument]


class _Page(msgspec.Struct):
    hits: _Hits
    scroll_id: str = msgspec.field(name="_scroll_id")


class Differences(NamedTuple):
    """Ids of consumers with a document that does not match the row, by kind of difference."""

    lost: set[str]
    """A row without a document, or with a tombstone."""
    resurrected: set[str]
    """A document other than a tombstone, without a row."""
    stale: set[str]
    """A document with another version or other bytes than the row's."""
    misread: set[str]
    """A document visible to readers without a row, or a row not visible to readers."""
    repeated: set[str]
    """Documents of the same id in several shards."""

    def counts(self) -> dict[str, int]:
        return {name: len(ids) for name, ids in self._asdict().items()}


def find_differences(database: Database) -> Differences:
    """Compare the whole index with the whole database; both must be idle."""
    with database.engine.connect() as connection:
        rows = {row[0]: row for row in connection.execute(ROWS)}
        index = connection.execute(LIVE).scalar_one()
    client = open_writer(database.settings)
    try:
        hits = list(_documents(client, index))
        indexed = {hit.id: hit for hit in hits}
        alias = naming.read_alias(database.settings.index_prefix)
        shown = {hit.id for hit in _documents(client, alias, has_source=False)}
    finally:
        client.close()
    living = {name for name, hit in indexed.items() if not hit.is_tombstone}
    return Differences(
        lost=rows.keys() - living,
        resurrected=living - rows.keys(),
        stale={name for name in rows.keys() & living if not _matches_row(indexed[name], rows[name])},
        misread=rows.keys() ^ shown,
        repeated={name for name, copies in Counter(hit.id for hit in hits).items() if copies > 1},
    )


def assert_index_equals_database(database: Database) -> None:
    """Assert that the idle index equals the database, readers see exactly the rows, and the outbox is empty."""
    with database.engine.connect() as connection:
        assert connection.execute(OUTBOX).all() == [], "the outbox is not empty"
    differences_ = find_differences(database)
    assert not any(differences_), differences_


def assert_index_soon_equals_database(database: Database, timeout: float = 60) -> None:
    """Wait until no change is queued, and assert that the index equals the database."""

    def is_idle() -> bool:
        with database.engine.connect() as connection:
            return not connection.execute(sa.text("SELECT FROM outbox WHERE parked_at IS NULL LIMIT 1")).all()

    wait_until(is_idle, timeout, what="an empty outbox")
    assert_index_equals_database(database)


def _matches_row(document: IndexedDocument, row: sa.Row[Any]) -> bool:
    """Return whether a document equals the row's document, byte for byte."""
    consumer = ConsumerRow._make(row[:-1])
    return document.version == consumer.version and bytes(document.source) == documents.document(consumer, row[-1])


def _documents(client: OpenSearch, index: str, *, has_source: bool = True) -> Iterator[IndexedDocument]:
    body = {"size": PAGE, "sort": ["_doc"], "version": True, "_source": has_source}
    response: Any = client.search(index=index, body=body, params={"scroll": "1m"})
    page = msgspec.json.decode(response, type=_Page)
    while page.hits.hits:
        yield from page.hits.hits
        response = client.scroll(body={"scroll_id": page.scroll_id, "scroll": "1m"})
        page = msgspec.json.decode(response, type=_Page)
    client.clear_scroll(body={"scroll_id": [page.scroll_id]})
