"""Compare the index with the database, by id, version and every byte, while both keep changing.

1. The ids are divided into ranges of a few thousand consumers (`ranges.py`).
2. For each range, the documents are read, then the rows, and from each row the expected document is made.
3. An unexpected document is a suspect, not yet a difference: documents and rows were read at different moments, and
   a change in between looks the same.
4. The suspects are read again, and the real differences confirmed (`suspects.py`).

Several ranges are compared at a time (`pool.py`). Results are returned in the order of the ids: the caller can record
a position to continue from.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain.claims import STORED_CONSUMER_COLUMNS, StoredConsumer
from indexer.verify import suspects
from indexer.verify.ranges import IdRange
from indexer.verify.suspects import ComparedIndex, ConfirmedDifference, IndexedDocument
from infra.ids import is_id
from infra.index.conversion import FIELDS
from infra.index.mapping import DOCUMENT_VERSION

MAX_DOCUMENTS = 3_000
"""Documents of a search: more than a range has consumers, because tombstones lie between the documents."""
MAX_PENDING = 4
"""Ranges submitted and not yet returned. Each may hold a few megabytes."""

GENERATION = sa.text("SELECT fields, document_version, shards FROM generations WHERE index_name = :name")
_ROWS = f"""
    SELECT {STORED_CONSUMER_COLUMNS} FROM consumers c
    WHERE c.id > :after AND (CAST(:last AS text) IS NULL OR c.id <= :last) {{scope}}"""
ROWS = sa.text(_ROWS.format(scope=""))
ROWS_OF_ENVIRONMENT = sa.text(_ROWS.format(scope="AND c.environment_id = :environment_id"))


class Scope(NamedTuple):
    """The documents and rows to compare."""

    compared_index: ComparedIndex
    environment_id: int | None
    """Compare this environment only; None: all."""


class Comparison(NamedTuple):
    """The result of comparing a range, or the first part of a range."""

    last: str | None
    """The last id compared; None: all ids to the end."""
    compared: int
    """Consumers."""
    in_flight: int
    """Suspects with a change under way: neither equal nor different yet."""
    differences: list[ConfirmedDifference]


Submit: TypeAlias = Callable[[IdRange], "Future[Comparison]"]


def index_of(engine: sa.Engine, name: str) -> ComparedIndex:
    """Return an index with the fields and the document version of the generation."""
    with engine.connect() as connection:
        row = connection.execute(GENERATION, {"name": name}).one_or_none()
    if row is None:
        return ComparedIndex(name, FIELDS, DOCUMENT_VERSION)
    return ComparedIndex(name, frozenset(row.fields), row.document_version, row.shards)


def compare_ranges(ranges: Iterable[IdRange], submit: Submit) -> Iterator[Comparison]:
    """Submit ranges, `MAX_PENDING` at a time, and yield their results in order."""
    pending: deque[tuple[IdRange, Future[Comparison]]] = deque()
    for id_range in ranges:
        pending.append((id_range, submit(id_range)))
        if len(pending) >= MAX_PENDING:
            yield from _complete(*pending.popleft(), submit)
    while pending:
        yield from _complete(*pending.popleft(), submit)


def _complete(id_range: IdRange, future: "Future[Comparison]", submit: Submit) -> Iterator[Comparison]:
    """Yield the results for a whole range: several if the index holds many more documents there than the database."""
    yield (comparison := future.result())
    while comparison.last != id_range.last:
        assert comparison.last is not None
        yield (comparison := submit(IdRange(comparison.last, id_range.last)).result())


def compare_range(engine: sa.Engine, client: OpenSearch, scope: Scope, id_range: IdRange) -> Comparison:
    """Compare a range; if the index holds more than `MAX_DOCUMENTS` documents there, only the first part.

    Args:
        engine: a single connection is used at a time.
        client: must return JSON text.
        scope: the index must have been refreshed after the last deletion of an outbox row.
        id_range: the range to compare.

    Raises:
        OpenSearchException, DBAPIError: OpenSearch or the database cannot be used.
    """
    documents, id_range = _read_documents(client, scope, id_range)
    statement = ROWS if scope.environment_id is None else ROWS_OF_ENVIRONMENT
    with engine.connect() as connection:
        # The driver's rows: conversion to SQLAlchemy's rows takes as long as the rest of reading.
        values = {**id_range._asdict(), "environment_id": scope.environment_id}
        rows = connection.execute(statement, values).cursor.fetchall()
    expected = {}
    for row in rows:
        stored = StoredConsumer.from_row(row)
        content = suspects.expected_content(stored, scope.compared_index)
        expected[stored.row.id] = _Expected(stored.row.environment_id, stored.row.version, content)
    confirmed = suspects.confirm(
        engine, client, scope.compared_index, _suspects(expected, documents, scope.compared_index)
    )
    differences = [
        difference for difference in confirmed.differences if not _is_of_another_range(scope, id_range, difference)
    ]
    return Comparison(id_range.last, len(rows), confirmed.in_flight, differences)


def _read_documents(client: OpenSearch, scope: Scope, id_range: IdRange) -> tuple[list[IndexedDocument], IdRange]:
    """Return the documents of a range, and the range that is covered completely.

    Documents without an id belong to the last range. The range query uses the terms index, at the same cost for every
    range; paging through a sort by id would read all documents again for each page.
    """
    bounds = {name: value for name, value in (("gt", id_range.after), ("lte", id_range.last)) if value}
    query: dict[str, Any] = {"filter": [{"range": {"id": bounds}}]}
    # Sorting by id is slower, and needed only when the search does not return the whole range.
    documents = _search(client, scope, query, "_doc")
    if len(documents) == MAX_DOCUMENTS:
        documents = _search(client, scope, query, "id")
        id_range = IdRange(id_range.after, documents[-1].sort[0])
        documents += _search(client, scope, {"filter": [{"term": {"id": id_range.last}}]}, "_doc")
    if id_range.last is None:
        documents += _search(client, scope, {"filter": [], "must_not": {"exists": {"field": "id"}}}, "_doc")
    return documents, id_range


def _search(client: OpenSearch, scope: Scope, query: dict[str, Any], order: str) -> list[IndexedDocument]:
    if scope.environment_id is not None:
        in_environment = {"term": {"environmentId": str(scope.environment_id)}}
        query = query | {"filter": [*query["filter"], in_environment]}
    return suspects.search(
        client, scope.compared_index.name, {"query": {"bool": query}, "sort": [order], "size": MAX_DOCUMENTS}
    )


class _Expected(NamedTuple):
    """The document of a row."""

    environment_id: int
    version: int
    content: bytes | None

    def matches(self, document: IndexedDocument, index: ComparedIndex) -> bool:
        return (
            self.version == document.version
            and (self.content == document.content or not index.compares_content)
            and document.is_in_shards_of(self.environment_id, index)
        )


def _suspects(expected: dict[str, _Expected], documents: list[IndexedDocument], index: ComparedIndex) -> list[str]:
    """Return the ids of unexpected and missing documents, each once. Takes the documents out of `expected`."""
    unexpected, seen = [], set()
    for document in documents:
        # Two documents of an id have different routing, and one of them is in the wrong shards.
        if (document.id, document.routing) in seen:
            continue
        seen.add((document.id, document.routing))
        if row := expected.pop(document.id, None):
            is_expected = row.matches(document, index)
        else:
            is_expected = _is_expected_tombstone(document, index)
        if not is_expected:
            unexpected.append(document.id)
    return list(dict.fromkeys([*unexpected, *expected]))


def _is_expected_tombstone(document: IndexedDocument, index: ComparedIndex) -> bool:
    is_consumer = is_id(suspects.PREFIX, document.id)
    return is_consumer and document.is_tombstone and document.is_in_shards_of(document.environment_id, index)


def _is_of_another_range(scope: Scope, id_range: IdRange, difference: ConfirmedDifference) -> bool:
    """Tell whether another range reports the difference too.

    A document is read in the range of its field `id`, which may name another consumer than `_id`. If `_id` has a row,
    then the range of the row reports the difference.
    """
    is_here = id_range.after < difference.id and (id_range.last is None or difference.id <= id_range.last)
    is_in_scope = scope.environment_id in {None, difference.environment_id}
    return not is_here and difference.database_version is not None and is_in_scope
