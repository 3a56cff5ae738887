"""Make the documents of a round, in portions: each portion is a `_bulk` request.

A round ends when the documents have `ROUND_BYTES`, or when writes took `WRITE_SECONDS`. So a round is short, whatever
the size of the documents, and however slow the index. Large documents have requests of their own, which are shorter, so
that a round ends in time.
"""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from indexer.drain import claims
from indexer.drain.bulk import MAX_REQUEST_BYTES, Document
from indexer.drain.round_robin import RoundRobin
from infra import logs
from infra.index import documents

NOW = sa.text("SELECT now()")

ROUND_BYTES = 4 * 1024 * 1024
WRITE_SECONDS, SHARED_WRITE_SECONDS = 0.2, 0.02
"""Time with writes to the live generation from which a round ends. While several environments are active, a round ends
sooner, once each environment of the round had a turn."""
READ_ROWS, READ_BYTES = 250, 512 * 1024
"""Limits of a statement: consumers, and bytes of their documents, because the round may end before the next one."""
LARGE_BYTES = 4 * 1024
"""Size from which a document is large."""
REQUEST_BYTES, LARGE_REQUEST_BYTES, SHARED_REQUEST_BYTES = MAX_REQUEST_BYTES, 256 * 1024, 64 * 1024
"""Approximate size of a request: with small documents, with large documents, and with large documents while several
environments are active."""


class Failure(NamedTuple):
    """A consumer without an indexed document: the document cannot be made, or is refused because of its content."""

    consumer_id: str
    version: int
    reason: str
    """Stored in the outbox, but not logged, because the reason may quote the document."""


class Portions:
    """The documents of a round, in portions. Each portion is a request of small documents, or of large documents."""

    def __init__(self, connection: sa.Connection, claim: claims.Claim, turns: RoundRobin) -> None:
        self._connection, self._claim, self._turns = connection, claim, turns
        self.batch: list[Document] = []
        """The documents of all portions so far."""
        self.bytes = 0
        self.failures: list[Failure] = []
        self.is_single = False
        """Whether the portion made last is the only portion of the round."""
        self._is_shared = turns.rests.is_shared

    def __iter__(self) -> Iterator[list[Document]]:
        """Make portions until the round is long enough. Each portion must be written before the next is made."""
        large_request_bytes = SHARED_REQUEST_BYTES if self._is_shared else LARGE_REQUEST_BYTES
        small, large = _Portion(REQUEST_BYTES), _Portion(large_request_bytes)
        seconds = 0.0
        for document in self._documents():
            portion = large if len(document.source) >= LARGE_BYTES else small
            if portion.add(document):
                started = time.monotonic()
                yield self._flush(portion)
                seconds += time.monotonic() - started
            if self.bytes >= ROUND_BYTES or self._is_long_enough(seconds):
                break
        self.is_single = not self.batch and not (small.documents and large.documents)
        for portion in (small, large):
            if portion.documents:
                yield self._flush(portion)

    def _is_long_enough(self, seconds: float) -> bool:
        """Return whether the round ends after this time with writes."""
        may_end_soon = self._is_shared and self._turns.is_everyone_served
        return seconds >= (SHARED_WRITE_SECONDS if may_end_soon else WRITE_SECONDS)

    def _flush(self, portion: "_Portion") -> list[Document]:
        documents = portion.flush()
        self.batch += documents
        return documents

    def _documents(self) -> Iterator[Document]:
        while ids := self._turns.take(READ_ROWS, min(READ_BYTES, ROUND_BYTES - self.bytes)):
            versions = {consumer_id: self._claim.versions[consumer_id] for consumer_id in ids}
            for made in read_documents(self._connection, versions, is_alone=self._claim.is_single):
                size = len(made.source) if isinstance(made, Document) else 0
                self._turns.charge(made.consumer_id, size)
                self.bytes += size
                if isinstance(made, Document):
                    yield made
                else:
                    self.failures.append(made)


class _Portion:
    """Documents for a request."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self.documents: list[Document] = []

    def add(self, document: Document) -> bool:
        """Add a document; return whether the request has its size."""
        self.documents.append(document)
        self._bytes += len(document.source)
        return self._bytes >= self._limit

    def flush(self) -> list[Document]:
        """Return the documents, and begin again without documents."""
        documents, self.documents, self._bytes = self.documents, [], 0
        return documents


def read_documents(
    connection: sa.Connection, versions: claims.Versions, *, is_alone: bool
) -> Iterator[Document | Failure]:
    """Read the present row of each consumer; make a document of each row, or a tombstone if there is no row.

    The rows are read by the call. Each document is made when the iterator reaches it, so few are in memory.

    Args:
        connection: in a transaction.
        versions: the consumers.
        is_alone: whether the only consumer is the cause if the query fails.
    """
    consumers, failures = _read_consumers(connection, versions, is_alone=is_alone)
    return iter(failures) if failures else _make_documents(connection, consumers, versions)


def _make_documents(
    connection: sa.Connection, consumers: dict[str, claims.StoredConsumer], versions: claims.Versions
) -> Iterator[Document | Failure]:
    # The time of the database, because the clocks of workers may differ.
    now: datetime | None = None
    for consumer_id, (environment_id, version) in versions.items():
        if not (consumer := consumers.get(consumer_id)):
            now = now or connection.execute(NOW).scalar_one()
            source = documents.tombstone(consumer_id, environment_id, version, now)
            yield Document(environment_id, consumer_id, version, source)
            continue
        row = consumer.row
        try:
            source = documents.document(row, consumer.audience_ids)
        except Exception as error:  # noqa: BLE001 (an error caused by one row must not stop the round)
            yield Failure(consumer_id, row.version, f"{type(error).__name__}: {error}")
        else:
            yield Document(row.environment_id, consumer_id, row.version, source)


def _read_consumers(
    connection: sa.Connection, versions: claims.Versions, *, is_alone: bool
) -> tuple[dict[str, claims.StoredConsumer], list[Failure]]:
    if not is_alone:
        return claims.read_consumers(connection, list(versions)), []
    [(consumer_id, (_, version))] = versions.items()
    try:
        with connection.begin_nested():
            return claims.read_consumers(connection, [consumer_id]), []
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return {}, [Failure(consumer_id, version, logs.error_kind(error))]
