"""Index = database: by id, version and content, and nothing besides."""

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


class Found(msgspec.Struct, rename={"id": "_id", "version": "_version", "source": "_source"}):
    """A document as it lies in the index."""

    id: str
    version: int
    source: msgspec.Raw

    @property
    def is_tombstone(self) -> bool:
        deleted: bool = msgspec.json.decode(self.source)["deleted"]
        return deleted


class _Hits(msgspec.Struct):
    hits: list[Found]


class _Page(msgspec.Struct):
    hits: _Hits
    scroll_id: str = msgspec.field(name="_scroll_id")


class Differences(NamedTuple):
    """Ids of consumers that are not in the index as they are in the database, by what is wrong."""

    lost: set[str]
    """No document, or only a tombstone, though there is a row."""
    resurrected: set[str]
    """A document that is no tombstone, though there is no row."""
    stale: set[str]
    """Another version, or other bytes, than the row's."""
    misread: set[str]
    """Shown to readers without a row, or a row not shown to them."""

    def counts(self) -> dict[str, int]:
        return {name: len(ids) for name, ids in self._asdict().items()}


def differences(database: Database) -> Differences:
    """Compare all of the index with all of the database; both at rest."""
    with database.engine.connect() as connection:
        rows = {row[0]: row for row in connection.execute(ROWS)}
        index = connection.execute(LIVE).scalar_one()
    client = open_writer(database.settings)
    try:
        found = {hit.id: hit for hit in _documents(client, index)}
        shown = {hit.id for hit in _documents(client, naming.read_alias(database.settings.index_prefix))}
    finally:
        client.close()
    alive = {name for name, hit in found.items() if not hit.is_tombstone}
    return Differences(
        lost=rows.keys() - alive,
        resurrected=alive - rows.keys(),
        stale={name for name in rows.keys() & alive if not _says(found[name], rows[name])},
        misread=rows.keys() ^ shown,
    )


def assert_agreement(database: Database) -> None:
    """At rest the index holds what the database holds, and readers see exactly that; nothing was parked."""
    with database.engine.connect() as connection:
        assert connection.execute(OUTBOX).all() == [], "the outbox is not empty"
    found = differences(database)
    assert not any(found), found


def assert_agreement_soon(database: Database, timeout: float = 60) -> None:
    """Wait until nothing is on its way, and compare."""

    def at_rest() -> bool:
        with database.engine.connect() as connection:
            return not connection.execute(sa.text("SELECT FROM outbox WHERE parked_at IS NULL LIMIT 1")).all()

    wait_until(at_rest, timeout, what="rest: an outbox without a row")
    assert_agreement(database)


def _says(found: Found, row: sa.Row[Any]) -> bool:
    """Whether a document is its row's, byte for byte."""
    consumer = ConsumerRow._make(row[:-1])
    return found.version == consumer.version and bytes(found.source) == documents.document(consumer, row[-1])


def _documents(client: OpenSearch, index: str) -> Iterator[Found]:
    body = {"size": PAGE, "sort": ["_doc"], "version": True}
    response: Any = client.search(index=index, body=body, params={"scroll": "1m"})
    page = msgspec.json.decode(response, type=_Page)
    while page.hits.hits:
        yield from page.hits.hits
        response = client.scroll(body={"scroll_id": page.scroll_id, "scroll": "1m"})
        page = msgspec.json.decode(response, type=_Page)
    client.clear_scroll(body={"scroll_id": [page.scroll_id]})
