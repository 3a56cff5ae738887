"""The drain: from the outbox to the index, without losing or reordering a change.

One round claims rows, reads their consumers as they are *now*, writes those, makes them searchable, and only then
forgets the rows. Killed anywhere, it happens again; versions settle every race between drains.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException
from sqlalchemy.exc import DBAPIError

from indexer.drain import claims, counters, standby
from indexer.drain.bulk import Document, IndexUnavailable, Item, fit_to_mapping, refresh, write
from indexer.drain.claims import Generation
from indexer.drain.standby import Misses
from infra import logs
from infra.index import documents, mapping, naming

log = structlog.get_logger()

ROUND_SECONDS = 8.0
"""A round older than this is given up before it writes: its locks may be gone, and its rows old."""
CONTROLS = 5
"""Documents of others that are tried where all were refused."""


class Round(NamedTuple):
    rows: int = 0
    documents: int = 0
    conflicts: int = 0
    failed: int = 0
    milliseconds: int = 0
    oldest_ms: int = 0
    requests: Sequence[str] = ()


class Failure(NamedTuple):
    """A document that cannot be written for what it is."""

    consumer_id: str
    version: int
    reason: str
    """It may quote the document: for those who may read the outbox, not for the log."""


def drain_round(connection: sa.Connection, client: OpenSearch, lane: str = "live", rows: int = claims.ROWS) -> Round:
    """One round, in one transaction.

    Args:
        connection: not in a transaction.
        client: whose answers are JSON text.
        lane: `live` or `bulk`.
        rows: how many outbox rows to take at the most. A single one that fails however, while documents of others can
            be written, has itself to blame.

    Raises:
        IndexUnavailable, OpenSearchException: the index is away; nothing was forgotten or counted against a document.
        DBAPIError: the database is.
    """
    started = time.monotonic()
    with connection.begin():
        claim = claims.claim(connection, lane, rows)
        if not claim.rows:
            return Round()
        live, others = _targets(connection)
        batch, failures = read_documents(connection, claim)
        if time.monotonic() - started > ROUND_SECONDS:
            raise IndexUnavailable("the round took too long before its write")
        beside = standby.start_writes(client, others, batch)
        items = write_documents(connection, client, live, batch)
        refresh(client, live.index_name)
        done = forget(connection, claim, batch, items, failures, standby.collect_misses(beside))
        counters.record(connection, lane, done)
    return Round(
        claim.rows,
        len(batch),
        done.conflicts,
        done.failures,
        round((time.monotonic() - started) * 1000),
        round(claim.oldest_ms),
        claim.requests,
    )


def _targets(connection: sa.Connection) -> tuple[Generation, list[Generation]]:
    """The live generation, which alone decides what is forgotten, and those beside it."""
    found = claims.targets(connection)
    if not found or not found[0].is_live:
        raise IndexUnavailable("there is no live index")
    live, *others = found
    if live.document_version > mapping.DOCUMENT_VERSION:
        raise IndexUnavailable(f"{live.index_name} was built by newer code than this worker's")
    return live, others


def read_documents(connection: sa.Connection, claim: claims.Claim) -> tuple[list[Document], list[Failure]]:
    """What the index should say of each claimed consumer: its row, or that it is gone."""
    rows, failures = _current(connection, claim)
    if failures:
        return [], failures
    now = datetime.now(UTC)
    batch = []
    for consumer_id, (environment_id, version) in claim.versions.items():
        if not (found := rows.get(consumer_id)):
            source = documents.tombstone(consumer_id, environment_id, version, now)
            batch.append(Document(environment_id, consumer_id, version, source))
            continue
        try:
            source = documents.document(found.row, found.audience_ids)
        except Exception as error:  # noqa: BLE001 (whatever it is about this row, the others go on)
            failures.append(Failure(consumer_id, found.row.version, f"{type(error).__name__}: {error}"))
        else:
            batch.append(Document(found.row.environment_id, consumer_id, found.row.version, source))
    return batch, failures


def _current(connection: sa.Connection, claim: claims.Claim) -> tuple[dict[str, claims.Current], list[Failure]]:
    """The rows; a single one that cannot be read, though the claim could be, is a failure of its own."""
    if len(claim.versions) > 1:
        return claims.read_consumers(connection, list(claim.versions)), []
    [(consumer_id, (_, version))] = claim.versions.items()
    try:
        with connection.begin_nested():
            return claims.read_consumers(connection, [consumer_id]), []
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return {}, [Failure(consumer_id, version, logs.error_kind(error))]


def write_documents(
    connection: sa.Connection, client: OpenSearch, live: Generation, batch: list[Document]
) -> list[Item]:
    """Write the documents, and tell those that are refused for what they are from a place that refuses all."""
    try:
        items = write(client, naming.write_alias(live.index_name), fit_to_mapping(batch, live.fields))
    except OpenSearchException as error:
        if len(batch) > 1 or not _accepts_others(connection, client, live):
            raise
        return [Item.refused(logs.error_kind(error))]
    if any(item.is_index_unavailable for item in items):
        raise IndexUnavailable(next(item.error_kind for item in items if item.is_index_unavailable))
    doubtful = [item for item in items if item.is_refused]
    if doubtful and len(doubtful) == len(items):
        others = _accepts_others(connection, client, live)
        # Without any other document to try, OpenSearch's word counts: a 400 is about what was sent.
        if others is False or (others is None and any(item.is_server_error for item in doubtful)):
            raise IndexUnavailable(f"every document is refused: {doubtful[0].error_kind}")
    return items


def _accepts_others(connection: sa.Connection, client: OpenSearch, live: Generation) -> bool | None:
    """Whether documents of consumers that are in the index can be written again; None if there are none."""
    batch = []
    for row, audience_ids in claims.consumers_without_changes(connection, CONTROLS):
        with suppress(Exception):
            batch.append(Document(row.environment_id, row.id, row.version, documents.document(row, audience_ids)))
    if not batch:
        return None
    try:
        items = write(client, naming.write_alias(live.index_name), fit_to_mapping(batch, live.fields))
    except OpenSearchException:
        return False
    return any(item.is_written for item in items)


def forget(
    connection: sa.Connection,
    claim: claims.Claim,
    batch: list[Document],
    items: list[Item],
    failures: list[Failure],
    missed: list[Misses],
) -> counters.RoundCounts:
    """Forget what is searchable now; the rest stays, to be written again, in other generations too."""
    done: dict[str, int] = {}
    taken = conflicts = 0
    for written, item in zip(batch, items, strict=True):
        indexed = item.indexed_version(claims.VERSION_LIMIT)
        if item.is_refused or indexed is None:
            failures.append(Failure(written.consumer_id, written.version, item.reason))
            continue
        conflicts += item.is_conflict
        taken += not item.is_conflict
        # Where the index is ahead, this change is not in it: its row stays until a newer version is.
        place = (written.environment_id, written.consumer_id)
        if not (item.is_conflict and claims.raise_version_above(connection, *place, indexed)):
            done[written.consumer_id] = max(written.version, claim.versions[written.consumer_id][1])
    for failure in failures:
        claims.record_failure(connection, *failure)
        kind = failure.reason.partition(":")[0]
        log.error("document_refused", consumer=failure.consumer_id, version=failure.version, kind=kind)
    forgotten = [each._replace(version=done[each.consumer_id]) for each in batch if each.consumer_id in done]
    standby.record_misses(connection, missed, forgotten)
    return counters.RoundCounts(taken, conflicts, len(failures), claims.delete_indexed(connection, done))
