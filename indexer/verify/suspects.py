"""Confirm suspects: tell real differences from changes under way while documents and rows were read.

1. Read the documents of the suspects.
2. In a single statement, read their rows and whether the outbox holds a change for the consumer.
3. Read the documents again.

If both document reads agree, and the outbox held nothing for the consumer in between, then document and row must
match, because a drain deletes the outbox row only after the change is searchable. If document and row do not match, no
drain will correct the document: the difference is real. In all remaining cases the document is in flight.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain.claims import STORED_CONSUMER_COLUMNS, StoredConsumer
from infra.database.floors import LANE_FLOORS, REFUSED, rows_of_consumer
from infra.ids import is_id
from infra.index import naming
from infra.index.conversion import WRITTEN_VERSIONS, convert
from infra.index.documents import Tombstone, document
from infra.index.hits import SearchResponse, SourceHit
from infra.operations.verify import Cause

PREFIX = "cons_"
ENVIRONMENT_ID = re.compile(r"[1-9][0-9]{0,8}")
BATCH = 500
"""Suspects read together."""
MAX_COPIES = 10
"""Documents read of each suspect, if they are in different shards."""

# A single statement reads row, outbox and misses at the same moment. A parked change does not count, because no drain
# will index the change. A miss counts, because the change will be written to this index later.
ROWS = sa.text(f"""
    SELECT i.id AS suspect_id,
        EXISTS (SELECT FROM ({LANE_FLOORS}) f CROSS JOIN LATERAL (
                    SELECT parked_at FROM outbox WHERE {rows_of_consumer("i.id", "f.lane", "f.seq")} OFFSET 0) o
                WHERE o.parked_at IS NULL)
            OR EXISTS (SELECT FROM outbox o WHERE o.consumer_id = i.id AND {REFUSED} AND o.parked_at IS NULL)
            OR EXISTS (SELECT FROM generation_misses m JOIN generations g ON g.id = m.generation_id
                       WHERE m.consumer_id = i.id AND g.index_name = :index) AS is_in_flight,
        {STORED_CONSUMER_COLUMNS}
    FROM unnest(CAST(:ids AS text[])) AS i (id) LEFT JOIN consumers c ON c.id = i.id""")
ENVIRONMENTS = sa.text("SELECT id FROM environments WHERE id = ANY(:ids)")


class ComparedIndex(NamedTuple):
    """An index to compare, with the form of its documents."""

    name: str
    fields: frozenset[str]
    document_version: int
    shards: int = 1

    @property
    def compares_content(self) -> bool:
        """Whether this code makes the same documents. Otherwise only versions are compared."""
        return self.document_version in WRITTEN_VERSIONS


class _WithEnvironment(msgspec.Struct, rename="camel"):
    environment_id: str


_decode_tombstone = msgspec.json.Decoder(Tombstone).decode
_decode_environment = msgspec.json.Decoder(_WithEnvironment).decode


class IndexedDocument(SourceHit[msgspec.Raw], kw_only=True):
    """A document in the index."""

    @property
    def content(self) -> bytes:
        return bytes(self.source)

    @property
    def is_tombstone(self) -> bool:
        """Whether the document is a tombstone with the right id and version, and without further fields."""
        try:
            tombstone = _decode_tombstone(self.source)
        except msgspec.DecodeError:
            return False
        return (
            tombstone.deleted
            and (tombstone.id, tombstone.version) == (self.id, self.version)
            and msgspec.json.encode(tombstone) == self.content
        )

    @property
    def environment_id(self) -> int | None:
        """The environment named by the document; None if the field is missing or invalid."""
        try:
            name = _decode_environment(self.source).environment_id
        except msgspec.DecodeError:
            return None
        return int(name) if ENVIRONMENT_ID.fullmatch(name) else None

    def is_in_shards_of(self, environment_id: int | None, index: ComparedIndex) -> bool:
        """Whether the document is in the shards of an environment, where its drains and readers expect it."""
        if index.shards == 1:
            return True
        return environment_id is not None and self.routing == naming.routing(environment_id)


_decode = msgspec.json.Decoder(SearchResponse[IndexedDocument]).decode


class ConfirmedDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A real difference between a document and the row with the same id."""

    id: str
    """The `_id` of the document: any text."""
    cause: Cause
    environment_id: int | None
    """The environment of the row or, without a row, of the document."""
    database_version: int | None
    """None without a row."""
    document: IndexedDocument | None
    """None if the index holds no such document."""

    @property
    def index_version(self) -> int | None:
        return self.document.version if self.document else None


class Confirmed(NamedTuple):
    differences: list[ConfirmedDifference]
    in_flight: int
    """Suspects with a change in the outbox, and documents changed between both reads."""


def search(client: OpenSearch, index: str, body: Mapping[str, Any]) -> list[IndexedDocument]:
    """Search documents, with versions and the exact bytes of their sources.

    Raises:
        OpenSearchException: the index cannot be searched.
    """
    body = {**body, "version": True, "track_total_hits": False}
    response: Any = client.search(index=index, body=body, params={"allow_partial_search_results": "false"})
    return _decode(response).hits.hits


def confirm(engine: sa.Engine, client: OpenSearch, index: ComparedIndex, ids: Sequence[str]) -> Confirmed:
    """Find the real differences among suspects.

    Raises:
        OpenSearchException, DBAPIError: OpenSearch or the database cannot be used.
    """
    differences: list[ConfirmedDifference] = []
    in_flight = 0
    for start in range(0, len(ids), BATCH):
        confirmed = _confirm(engine, client, index, ids[start : start + BATCH])
        differences += confirmed.differences
        in_flight += confirmed.in_flight
    return Confirmed(differences, in_flight)


def _confirm(engine: sa.Engine, client: OpenSearch, index: ComparedIndex, ids: Sequence[str]) -> Confirmed:
    before = _read_documents(client, index, ids)
    with engine.connect() as connection:
        rows, ids_in_flight = _read_rows(
            connection, index, [suspect_id for suspect_id in ids if is_id(PREFIX, suspect_id)]
        )
        named = {document.environment_id for copies in before.values() for document in copies}
        environments = set(connection.execute(ENVIRONMENTS, {"ids": [number for number in named if number]}).scalars())
    after = _read_documents(client, index, ids)
    differences, in_flight = [], len(ids_in_flight)
    for suspect_id in ids:
        copies, stored = after.get(suspect_id, []), rows.get(suspect_id)
        if suspect_id in ids_in_flight:
            continue
        if copies != before.get(suspect_id, []):
            in_flight += 1
            continue
        indexed, misplaced = _divide(copies, stored, index)
        if cause := _cause(suspect_id, indexed, stored, environments, index):
            differences.append(_difference(suspect_id, cause, indexed, stored))
        differences += [_difference(suspect_id, "foreign", copy, None) for copy in misplaced]
    return Confirmed(differences, in_flight)


def _read_documents(client: OpenSearch, index: ComparedIndex, ids: Sequence[str]) -> dict[str, list[IndexedDocument]]:
    """Read the documents of each id. There is more than one if documents are in the wrong shards."""
    size = len(ids) * min(index.shards, MAX_COPIES)
    body = {"query": {"ids": {"values": list(ids)}}, "size": size, "seq_no_primary_term": True}
    documents: dict[str, list[IndexedDocument]] = {}
    for indexed in sorted(search(client, index.name, body), key=lambda indexed: indexed.routing or ""):
        documents.setdefault(indexed.id, []).append(indexed)
    return documents


def _divide(
    copies: Sequence[IndexedDocument], stored: StoredConsumer | None, index: ComparedIndex
) -> tuple[IndexedDocument | None, list[IndexedDocument]]:
    """Return the document to compare with the row, and the documents that must not exist beside it.

    A tombstone beside the document is right if the consumer was deleted in another environment.
    """
    in_place = [copy for copy in copies if copy.is_in_shards_of(copy.environment_id, index)]
    if stored is None:
        compared = [copy for copy in in_place if not copy.is_tombstone] or in_place
    else:
        compared = [copy for copy in copies if copy.is_in_shards_of(stored.row.environment_id, index)]
    document = compared[0] if compared else None
    others = [copy for copy in copies if copy is not document]
    return document, [copy for copy in others if copy not in in_place or not copy.is_tombstone]


def _read_rows(
    connection: sa.Connection, index: ComparedIndex, ids: Sequence[str]
) -> tuple[dict[str, StoredConsumer], set[str]]:
    rows, ids_in_flight = {}, set()
    values = {"ids": list(ids), "index": index.name}
    for row in connection.execute(ROWS, values):
        if row.is_in_flight:
            ids_in_flight.add(row.suspect_id)
        elif row.id is not None:
            rows[row.suspect_id] = StoredConsumer.from_row(row[2:])
    return rows, ids_in_flight


def _cause(
    document_id: str,
    indexed: IndexedDocument | None,
    stored: StoredConsumer | None,
    environments: set[int],
    index: ComparedIndex,
) -> Cause | None:
    """Return why document and row do not match; None if both match."""
    if stored is None:
        if indexed is None or (indexed.is_tombstone and is_id(PREFIX, document_id)):
            return None
        could_be_a_consumer = is_id(PREFIX, document_id) and indexed.environment_id in environments
        return "resurrected" if could_be_a_consumer else "foreign"
    if indexed is None:
        return "missing"
    if indexed.environment_id != stored.row.environment_id:
        return "foreign"
    if indexed.version != stored.row.version:
        return "stale" if indexed.version < stored.row.version else "ahead"
    is_equal = not index.compares_content or indexed.content == expected_content(stored, index)
    return None if is_equal else "content"


def expected_content(stored: StoredConsumer, index: ComparedIndex) -> bytes | None:
    """Return the expected source for a row; None if no document can be made of the row."""
    try:
        return convert(document(*stored), index)
    except Exception:  # noqa: BLE001 (a fault of one row must not end the comparison of all rows)
        return None


def _difference(
    document_id: str, cause: Cause, indexed: IndexedDocument | None, stored: StoredConsumer | None
) -> ConfirmedDifference:
    return ConfirmedDifference(
        id=document_id,
        cause=cause,
        environment_id=stored.row.environment_id if stored else indexed.environment_id if indexed else None,
        database_version=stored.row.version if stored else None,
        document=indexed,
    )
