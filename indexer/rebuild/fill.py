"""Filling a new generation from the database: slices of the table, page by page, by any number of workers.

A page is a transaction: its slice is held, and moves on with what was written. Killed anywhere, the page happens again.
What is changed meanwhile the drains write there too, and versions settle who came later.
"""

from typing import NamedTuple

import sqlalchemy as sa
from opensearchpy import OpenSearch
from sqlalchemy.exc import DBAPIError

from indexer.drain import claims, standby
from indexer.drain.bulk import Document, Item, fit_to_mapping, raise_if_unavailable, write
from indexer.drain.claims import Generation
from infra import logs
from infra.index import documents, mapping, naming

ROWS = 4_000
"""Consumers of a slice: few, so that those who fill end together."""
FEW = 20
"""A page of so many documents that are all refused means that the others will be, too."""

PLAN = sa.text("""
    WITH RECURSIVE walk (number, position, until_id) AS (
        SELECT 1, '' COLLATE "C", (SELECT id FROM consumers ORDER BY id OFFSET :rows - 1 LIMIT 1)
        UNION ALL
        SELECT w.number + 1, w.until_id, (
            SELECT c.id FROM consumers c WHERE c.id > w.until_id ORDER BY c.id OFFSET :rows - 1 LIMIT 1)
        FROM walk w WHERE w.until_id IS NOT NULL)
    INSERT INTO generation_slices (generation_id, number, position, until_id)
    SELECT :generation_id, number, position, until_id FROM walk ON CONFLICT DO NOTHING""")
TAKE = sa.text("""
    SELECT g.id, g.index_name, g.state, g.document_version, g.fields, s.number, s.position, s.until_id
    FROM generation_slices s JOIN generations g ON g.id = s.generation_id
    WHERE g.phase = 'filling' AND g.state = 'filling' AND NOT g.is_paused AND g.wanted IS NULL AND s.done_at IS NULL
        AND g.document_version <= :document_version
    ORDER BY s.number LIMIT 1 FOR UPDATE OF s SKIP LOCKED""")
WITHIN = "c.id > :position AND (CAST(:until_id AS text) IS NULL OR c.id <= :until_id) ORDER BY c.id LIMIT :rows"
PAGE = sa.text(f"SELECT {claims.STORED_CONSUMER_COLUMNS} FROM consumers c WHERE {WITHIN}")
UNREADABLE = sa.text(f"SELECT c.environment_id, c.id, c.version FROM consumers c WHERE {WITHIN}")
MOVE = sa.text("""
    UPDATE generation_slices SET position = :position, documents = documents + :documents,
        done_at = CASE WHEN :done THEN present() END
    WHERE generation_id = :generation_id AND number = :number""")


class RefusedError(Exception):
    """The new generation does not take the documents for what they are: it will not do."""


class Page(NamedTuple):
    batch: list[Document]
    failures: dict[str, str]
    """Why, by consumer, no document could be made."""
    lacking: list[Document]
    """Those consumers."""
    last: str | None


def plan(connection: sa.Connection, generation_id: int) -> None:
    """Divide the table, unless that is done; the last slice has no end."""
    connection.execute(PLAN, {"generation_id": generation_id, "rows": ROWS})


def fill(connection: sa.Connection, client: OpenSearch, rows: int) -> int | None:
    """Write one page, in one transaction; None if there is no slice to be had.

    Raises:
        IndexUnavailable, OpenSearchException: the index cannot be written just now.
        RefusedError: it will never be.
        DBAPIError: the database is away, or a row cannot be read; alone, such a row is passed over as missed.
    """
    with connection.begin():
        values = {"document_version": mapping.DOCUMENT_VERSION}
        if (taken := connection.execute(TAKE, values).one_or_none()) is None:
            return None
        generation = Generation.from_row(taken)
        page = _read(connection, {"position": taken.position, "until_id": taken.until_id, "rows": rows})
        items = write(client, naming.write_alias(taken.index_name), fit_to_mapping(page.batch, generation.fields))
        refused = _refused(page, items)
        standby.record_misses(connection, [standby.Misses(generation, refused)], [*page.batch, *page.lacking])
        found = len(page.batch) + len(page.lacking)
        move = {"position": page.last or taken.position, "documents": found, "done": found < rows}
        connection.execute(MOVE, move | {"generation_id": taken.id, "number": taken.number})
    return found


def _read(connection: sa.Connection, values: dict[str, object]) -> Page:
    try:
        with connection.begin_nested():
            rows = connection.execute(PAGE, values).all()
    except DBAPIError as error:
        if error.connection_invalidated or values["rows"] != 1:
            raise
        lacking = [
            Document(row.environment_id, row.id, row.version, b"") for row in connection.execute(UNREADABLE, values)
        ]
        reasons = {each.consumer_id: logs.error_kind(error) for each in lacking}
        return Page([], reasons, lacking, lacking[-1].consumer_id)
    batch, failures, lacking = [], {}, []
    for row in rows:
        found = claims.StoredConsumer.from_row(row)
        place = (found.row.environment_id, found.row.id, found.row.version)
        try:
            batch.append(Document(*place, documents.document(found.row, found.audience_ids)))
        except Exception as error:  # noqa: BLE001 (whatever it is about this row, the others go on)
            failures[found.row.id] = type(error).__name__
            lacking.append(Document(*place, b""))
    return Page(batch, failures, lacking, rows[-1].id if rows else None)


def _refused(page: Page, items: list[Item]) -> dict[str, str]:
    """Why, by consumer, there is no document."""
    raise_if_unavailable(items)
    refused = {
        written.consumer_id: item.error_kind for written, item in zip(page.batch, items, strict=True) if item.is_refused
    }
    if len(items) >= FEW and len(refused) == len(items):
        raise RefusedError(f"every document is refused: {items[0].error_kind}")
    return page.failures | refused
