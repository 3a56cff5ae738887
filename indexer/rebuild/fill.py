"""Write every consumer to a new index: the table is divided into slices, and workers write the slices page by page.

A page is a transaction: lock a slice, write the documents, advance the position of the slice. After a crash the page
is written again. Changes made meanwhile reach the index by the drains: the index keeps the newest version of each
document, whichever writer comes last.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from opensearchpy import OpenSearch
from sqlalchemy.exc import DBAPIError

from indexer.drain import claims, standby
from indexer.drain.bulk import Document, Item, convert_all, raise_if_unavailable, write
from indexer.drain.claims import Generation
from infra import logs
from infra.index import documents, mapping, naming

SLICE_ROWS = 4_000
"""Consumers of a slice. Small slices let all workers finish at about the same time."""
PAGE_BYTES = 8 * 1024 * 1024
"""Approximate size of a page: a page of large documents has fewer rows, because live changes wait for the page."""
HOPELESS_DOCUMENTS = 20
"""If a page of at least this many documents is refused as a whole, the index would refuse all further documents too."""

DIVIDE = sa.text("""
    WITH RECURSIVE walk (number, position, until_id) AS (
        SELECT 1, '' COLLATE "C", (SELECT id FROM consumers ORDER BY id OFFSET :rows - 1 LIMIT 1)
        UNION ALL
        SELECT w.number + 1, w.until_id, (
            SELECT c.id FROM consumers c WHERE c.id > w.until_id ORDER BY c.id OFFSET :rows - 1 LIMIT 1)
        FROM walk w WHERE w.until_id IS NOT NULL)
    INSERT INTO generation_slices (generation_id, number, position, until_id)
    SELECT :generation_id, number, position, until_id FROM walk ON CONFLICT DO NOTHING""")
LOCK_SLICE = sa.text("""
    SELECT g.id, g.index_name, g.state, g.document_version, g.fields, s.number, s.position, s.until_id
    FROM generation_slices s JOIN generations g ON g.id = s.generation_id
    WHERE g.phase = 'filling' AND g.state = 'filling' AND NOT g.is_paused AND g.wanted IS NULL AND s.done_at IS NULL
        AND g.document_version <= :document_version
    ORDER BY s.number LIMIT 1 FOR UPDATE OF s SKIP LOCKED""")
WITHIN = "c.id > :position AND (CAST(:until_id AS text) IS NULL OR c.id <= :until_id) ORDER BY c.id LIMIT :rows"
PAGE = sa.text(f"SELECT {claims.STORED_CONSUMER_COLUMNS} FROM consumers c WHERE {WITHIN}")
VERSIONS = sa.text(f"SELECT c.environment_id, c.id, c.version FROM consumers c WHERE {WITHIN}")
ADVANCE = sa.text("""
    UPDATE generation_slices SET position = :position, documents = documents + :documents,
        done_at = CASE WHEN :done THEN present() END
    WHERE generation_id = :generation_id AND number = :number""")


class RefusedError(Exception):
    """The new index refuses every document, so the rebuild cannot succeed."""


class Page(NamedTuple):
    """The consumers of a page."""

    documents: list[Document]
    failures: dict[str, str]
    """By consumer id, the reason why no document could be made."""
    failed: list[Document]
    """The consumers of `failures`, each with an empty source."""
    last_id: str | None
    is_last: bool
    """Whether the page has all remaining consumers of the slice."""


def divide_table(connection: sa.Connection, generation_id: int) -> None:
    """Divide the table into slices, unless slices exist. The last slice has no end, so new consumers are included."""
    connection.execute(DIVIDE, {"generation_id": generation_id, "rows": SLICE_ROWS})


def write_page(connection: sa.Connection, client: OpenSearch, rows: int) -> bool:
    """Write a page of a free slice, up to `rows` consumers, in a transaction; return False if no slice is free.

    Consumers without a document, or with a refused document, become misses.

    Raises:
        IndexUnavailable, OpenSearchException: the index cannot be written at present.
        RefusedError: the index refuses every document.
        DBAPIError: the database is unavailable, or a row of several cannot be read. A single such row becomes a miss.
    """
    with connection.begin():
        values = {"document_version": mapping.DOCUMENT_VERSION}
        if (part := connection.execute(LOCK_SLICE, values).one_or_none()) is None:
            return False
        generation = Generation.from_row(part)
        page = _read(connection, {"position": part.position, "until_id": part.until_id, "rows": rows})
        items = write(client, naming.write_alias(part.index_name), convert_all(page.documents, generation))
        misses = standby.Misses(generation, page.failures | _refused(page.documents, items))
        standby.record_misses(connection, [misses], [*page.documents, *page.failed])
        count = len(page.documents) + len(page.failed)
        progress = {"position": page.last_id or part.position, "documents": count, "done": page.is_last}
        connection.execute(ADVANCE, progress | {"generation_id": part.id, "number": part.number})
    return True


def _read(connection: sa.Connection, values: Mapping[str, Any]) -> Page:
    """Read the rows of a page, and make their documents."""
    try:
        with connection.begin_nested():
            rows = connection.execute(PAGE, values).all()
    except DBAPIError as error:
        if error.connection_invalidated or values["rows"] != 1:
            raise
        unreadable = connection.execute(VERSIONS, values)
        failed = [Document(row.environment_id, row.id, row.version, b"") for row in unreadable]
        failures = {document.consumer_id: logs.error_kind(error) for document in failed}
        return Page([], failures, failed, failed[-1].consumer_id, is_last=False)
    page: list[Document] = []
    failures, failed, last_id, size = {}, [], None, 0
    for row in rows:
        consumer, audience_ids = claims.StoredConsumer.from_row(row)
        key = (consumer.environment_id, consumer.id, consumer.version)
        try:
            page.append(Document(*key, documents.document(consumer, audience_ids)))
            size += len(page[-1].source)
        except Exception as error:  # noqa: BLE001 (the remaining rows of the page are written after any error)
            failures[consumer.id] = type(error).__name__
            failed.append(Document(*key, b""))
        last_id = consumer.id
        if size >= PAGE_BYTES:
            return Page(page, failures, failed, last_id, is_last=False)
    return Page(page, failures, failed, last_id, is_last=len(rows) < values["rows"])


def _refused(page: list[Document], items: list[Item]) -> dict[str, str]:
    """By consumer id, the reason why the index refused the document."""
    raise_if_unavailable(items)
    refused = {
        document.consumer_id: item.error_kind for document, item in zip(page, items, strict=True) if item.is_refused
    }
    if len(items) >= HOPELESS_DOCUMENTS and len(refused) == len(items):
        raise RefusedError(f"every document is refused: {items[0].error_kind}")
    return refused
