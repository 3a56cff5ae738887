"""What is really wrong with consumers whose documents seem to differ, while database and index go on changing.

A document that is the same before and after a moment at which no change of its consumer was on its way must be that
moment's row: a drain makes a change searchable first, and forgets it only then. If it is not, nothing will mend it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain.bulk import select_fields
from indexer.drain.claims import STORED_CONSUMER_COLUMNS, StoredConsumer
from infra.ids import is_id
from infra.index.documents import Tombstone, document

Cause: TypeAlias = Literal["missing", "stale", "ahead", "resurrected", "foreign", "content"]

PREFIX = "cons_"
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
BATCH = 500
"""Suspects that are looked at together."""

# One statement, and so one moment. Parked changes are on their way no more.
ROWS = sa.text(f"""
    SELECT i.id AS asked,
        EXISTS (SELECT FROM outbox o WHERE o.consumer_id = i.id AND o.parked_at IS NULL)
            OR EXISTS (SELECT FROM generation_misses m JOIN generations g ON g.id = m.generation_id
                       WHERE m.consumer_id = i.id AND g.index_name = :index) AS is_on_its_way,
        {STORED_CONSUMER_COLUMNS}
    FROM unnest(CAST(:ids AS text[])) AS i (id) LEFT JOIN consumers c ON c.id = i.id""")
ENVIRONMENTS = sa.text("SELECT id FROM environments WHERE id = ANY(:ids)")


class Index(NamedTuple):
    """What is looked at."""

    name: str
    fields: frozenset[str]
    """Those its mapping declares: it was given no others."""
    is_of_this_code: bool = True
    """Whether its documents are made as this code makes them; those of other code are compared by version alone."""


class Found(msgspec.Struct, rename={"id": "_id", "version": "_version", "source": "_source", "seq_no": "_seq_no"}):
    """A document as it lies in the index. `seq_no` and `primary_term`, where asked for, name this state of it."""

    id: str
    version: int
    source: msgspec.Raw
    seq_no: int = -1
    primary_term: int = msgspec.field(default=-1, name="_primary_term")
    sort: list[Any] = []

    @property
    def is_tombstone(self) -> bool:
        """Whether it is one, and nothing more."""
        try:
            told = _tombstone(self.source)
        except msgspec.DecodeError:
            return False
        return (
            told.deleted
            and (told.id, told.version) == (self.id, self.version)
            and msgspec.json.encode(told) == self.bytes
        )

    @property
    def bytes(self) -> bytes:
        return bytes(self.source)

    @property
    def environment_id(self) -> int | None:
        """The number it names as its environment's; None if it names none."""
        try:
            named = _claimed(self.source).environment_id
        except msgspec.DecodeError:
            return None
        return int(named) if NUMBER.fullmatch(named) else None


class _Claimed(msgspec.Struct, rename="camel"):
    environment_id: str


_tombstone = msgspec.json.Decoder(Tombstone).decode
_claimed = msgspec.json.Decoder(_Claimed).decode


class _Hits(msgspec.Struct):
    hits: list[Found]


class _Answer(msgspec.Struct):
    hits: _Hits


_answer = msgspec.json.Decoder(_Answer).decode


class Difference(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A document that is not as the database has it."""

    id: str
    """The document's: whatever it is, a consumer's or not."""
    cause: Cause
    environment_id: int | None
    """The consumer's, or else the one that the document names."""
    database_version: int | None
    index_version: int | None


class Checked(NamedTuple):
    differences: list[tuple[Difference, Found | None]]
    in_flight: int
    """Those whose document is about to be written anew, or was meanwhile."""


def search(client: OpenSearch, index: str, body: Mapping[str, Any]) -> list[Found]:
    """Documents with their versions, and sources byte for byte.

    Raises:
        OpenSearchException: the index cannot be searched.
    """
    options = {"version": True, "track_total_hits": False}
    answer: Any = client.search(index=index, body={**body, **options}, params={"allow_partial_search_results": "false"})
    return _answer(answer).hits.hits


def check(engine: sa.Engine, client: OpenSearch, index: Index, ids: Sequence[str]) -> Checked:
    """Tell what is wrong with each of these documents, if anything is.

    Raises:
        OpenSearchException, DBAPIError: one of the two is away.
    """
    checked = Checked([], 0)
    for start in range(0, len(ids), BATCH):
        part = _check(engine, client, index, ids[start : start + BATCH])
        checked = Checked(checked.differences + part.differences, checked.in_flight + part.in_flight)
    return checked


def _check(engine: sa.Engine, client: OpenSearch, index: Index, ids: Sequence[str]) -> Checked:
    before = _indexed(client, index.name, ids)
    with engine.connect() as connection:
        rows, on_their_way = _rows(connection, index, [each for each in ids if is_id(PREFIX, each)])
        named = {found.environment_id for found in before.values()}
        environments = set(connection.execute(ENVIRONMENTS, {"ids": [each for each in named if each]}).scalars())
    after = _indexed(client, index.name, ids)
    differences, in_flight = [], len(on_their_way)
    for each in ids:
        found, current = after.get(each), rows.get(each)
        if each in on_their_way:
            continue
        if found != before.get(each):
            in_flight += 1
        elif cause := _cause(each, found, current, environments, index):
            differences.append((_difference(each, cause, found, current), found))
    return Checked(differences, in_flight)


def _indexed(client: OpenSearch, index: str, ids: Sequence[str]) -> dict[str, Found]:
    body = {"query": {"ids": {"values": list(ids)}}, "size": len(ids), "seq_no_primary_term": True}
    return {found.id: found for found in search(client, index, body)}


def _rows(connection: sa.Connection, index: Index, ids: Sequence[str]) -> tuple[dict[str, StoredConsumer], set[str]]:
    rows, on_their_way = {}, set()
    for row in connection.execute(ROWS, {"ids": list(ids), "index": index.name}):
        if row.is_on_its_way:
            on_their_way.add(row.asked)
        elif row.id is not None:
            rows[row.asked] = StoredConsumer.from_row(row[2:])
    return rows, on_their_way


def _cause(
    document_id: str, found: Found | None, current: StoredConsumer | None, environments: set[int], index: Index
) -> Cause | None:
    if current is None:
        if found is None or (found.is_tombstone and is_id(PREFIX, document_id)):
            return None
        known = is_id(PREFIX, document_id) and found.environment_id in environments
        return "resurrected" if known else "foreign"
    if found is None:
        return "missing"
    if found.environment_id != current.row.environment_id:
        return "foreign"
    if found.version != current.row.version:
        return "stale" if found.version < current.row.version else "ahead"
    return None if not index.is_of_this_code or found.bytes == expected(current, index) else "content"


def expected(current: StoredConsumer, index: Index) -> bytes | None:
    """The document that a row should have there; None if none can be made of it."""
    try:
        return select_fields(document(*current), index.fields)
    except Exception:  # noqa: BLE001 (whatever it is about this row, the others are compared)
        return None


def _difference(document_id: str, cause: Cause, found: Found | None, current: StoredConsumer | None) -> Difference:
    return Difference(
        id=document_id,
        cause=cause,
        environment_id=current.row.environment_id if current else found.environment_id if found else None,
        database_version=current.row.version if current else None,
        index_version=found.version if found else None,
    )
