"""Write every consumer to a new index: the table is divided into slices, and workers write the slices page by page.

A page is a transaction: lock a slice, write the documents, advance the position of the slice. After a crash the page
is written again. Changes made meanwhile reach the index by the drains: the index keeps the newest version of each
document, whichever writer comes last.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from typing import Any

import sqlalchemy as sa
from opensearchpy import OpenSearch
from sqlalchemy.exc import DBAPIError

from indexer.drain import claims, standby
from indexer.drain.bulk import Document, Item, raise_if_unavailable, requests, send
from indexer.drain.claims import Generation
from infra import logs
from infra.index import documents, mapping, naming
from infra.index.conversion import convert

SLICE_ROWS = 4_000
"""Consumers of a slice. Small slices let all workers finish at about the same time."""
READ_ROWS = 250
"""Consumers of a statement: the first documents of a page are soon made, and the next rows read beside the requests."""
PAGE_BYTES = 8 * 1024 * 1024
"""Approximate size of a page: a page of large documents has fewer rows, because live changes wait for the page."""
REQUEST_BYTES, SENDERS = 512 * 1024, 2
"""Approximate size of a request, and requests sent at a time by a process."""
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


class Page:
    """The consumers of a page, noted while their documents are made; without the sources."""

    def __init__(self) -> None:
        self.written: list[Document] = []
        self.failed: list[Document] = []
        self.failures: dict[str, str] = {}
        """By consumer id, the reason why no document could be made."""
        self.is_cut = False
        """Whether the page has reached its size before its last row."""

    @property
    def last_id(self) -> str | None:
        return max((document.consumer_id for document in (*self.written[-1:], *self.failed[-1:])), default=None)

    def add_failure(self, key: tuple[int, str, int], reason: str) -> None:
        self.failed.append(Document(*key, b""))
        self.failures[key[1]] = reason


def divide_table(connection: sa.Connection, generation_id: int) -> None:
    """Divide the table into slices, unless slices exist. The last slice has no end, so new consumers are included."""
    connection.execute(DIVIDE, {"generation_id": generation_id, "rows": SLICE_ROWS})


def write_page(connection: sa.Connection, client: OpenSearch, sender: Executor, rows: int) -> bool:
    """Write a page of a free slice, up to `rows` consumers, in a transaction; return False if no slice is free.

    Consumers without a document, or with a refused document, become misses.

    Args:
        connection: for the transaction.
        client: with answers as JSON text.
        sender: sends the requests, `SENDERS` at a time.
        rows: maximum of consumers.

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
        page = Page()
        read = _read(connection, page, part, rows)
        alias, made = naming.write_alias(part.index_name), _documents(read, page, generation)
        items = _answers(sender.submit(send, client, alias, lines, {}) for lines in requests(made, REQUEST_BYTES))
        misses = standby.Misses(generation, page.failures | _refused(page.written, items))
        standby.record_misses(connection, [misses], [*page.written, *page.failed])
        count = len(page.written) + len(page.failed)
        is_done = not page.is_cut and count < rows
        progress = {"position": page.last_id or part.position, "documents": count, "done": is_done}
        connection.execute(ADVANCE, progress | {"generation_id": part.id, "number": part.number})
    return True


def _read(connection: sa.Connection, page: Page, part: sa.Row[Any], rows: int) -> Iterator[claims.StoredConsumer]:
    """Read the rows of a page, `READ_ROWS` at a time: the index writes documents meanwhile.

    A single row that cannot be read is a failure of the page.
    """
    position = part.position
    while rows > 0:
        wanted = min(rows, READ_ROWS)
        values = {"position": position, "until_id": part.until_id, "rows": wanted}
        try:
            with connection.begin_nested() if rows == 1 else nullcontext():
                found = connection.execute(PAGE, values).all()
        except DBAPIError as error:
            if error.connection_invalidated or rows != 1:
                raise
            for row in connection.execute(VERSIONS, values):
                page.add_failure((row.environment_id, row.id, row.version), logs.error_kind(error))
            return
        consumers = [claims.StoredConsumer.from_row(row) for row in found]
        yield from consumers
        if len(consumers) < wanted:
            return
        rows, position = rows - wanted, consumers[-1].row.id


def _documents(consumers: Iterable[claims.StoredConsumer], page: Page, generation: Generation) -> Iterator[Document]:
    """Make the documents of the rows, in the form of the generation, up to the size of a page, and note them."""
    size = 0
    for consumer, audience_ids in consumers:
        key = (consumer.environment_id, consumer.id, consumer.version)
        if size >= PAGE_BYTES:
            page.is_cut = True
            return
        try:
            source = convert(documents.document(consumer, audience_ids), generation)
        except Exception as error:  # noqa: BLE001 (the remaining rows of the page are written after any error)
            page.add_failure(key, type(error).__name__)
        else:
            page.written.append(Document(*key, b""))
            size += len(source)
            yield Document(*key, source)


def _answers(requests: Iterable[Future[list[Item]]]) -> list[Item]:
    """Return the answers for all documents, in order. The next request is made while `SENDERS` requests are sent."""
    items: list[Item] = []
    sent = deque[Future[list[Item]]]()
    for request in requests:
        sent.append(request)
        if len(sent) > SENDERS:
            items += sent.popleft().result()
    return items + [item for request in sent for item in request.result()]


def _refused(written: list[Document], items: list[Item]) -> dict[str, str]:
    """By consumer id, the reason why the index refused the document."""
    raise_if_unavailable(items)
    refused = {
        document.consumer_id: item.error_kind for document, item in zip(written, items, strict=True) if item.is_refused
    }
    if len(items) >= HOPELESS_DOCUMENTS and len(refused) == len(items):
        raise RefusedError(f"every document is refused: {items[0].error_kind}")
    return refused
