"""A round of the drain: bring changes from the outbox to the index, without losing or reordering a change.

A round is a transaction with six steps. Each step is a function:

1. `claims.claim` locks up to 1,000 outbox rows of a lane, a share for each environment. Concurrent rounds skip locked
   rows.
2. `targets` takes the barrier (shared) and lists the generations to write: the live generation, and the standby
   generations (being built, or kept for a rollback).
3. `read_documents` reads the present rows of claimed consumers and makes the documents. The document of a deleted
   consumer is a tombstone.
4. `write_documents` writes the documents to the live generation. A `standby.Writer` writes the same documents to a
   standby generation at the same time.
5. `make_searchable` refreshes the index. If the documents fit in a single request, this request has refreshed it.
6. `forget` deletes the outbox rows of all searchable changes. The rows of a refused document stay in the outbox, are
   retried later, and are parked after five failures.

Steps 3 and 4 alternate, portion by portion, until the round is long enough (`portions.py`). The environments take turns
(`round_robin.py`). Claimed rows that the round did not reach stay in the outbox for a later round. So a change of a
small environment waits for two short rounds at most, whatever other environments send.

A worker killed at any step loses nothing: the transaction is rolled back, the rows stay in the outbox, and the next
round repeats the work. Versions settle every race between rounds, because OpenSearch never replaces a document with an
older version.

While a rebuild fills a new generation, every change is written there too (step 4), and `indexer/rebuild/fill.py` copies
all consumers from the database. If both write the same consumer, the newer version wins. A change the new generation
did not take is recorded as a miss (step 6) and written by `indexer/rebuild/refill.py` before the generation goes live.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import ConnectionError as NoAnswer
from opensearchpy.exceptions import OpenSearchException

from indexer.drain import claims, counters, standby
from indexer.drain.bulk import Document, IndexUnavailable, Item, convert_all, refresh, write
from indexer.drain.claims import Generation
from indexer.drain.portions import Failure, Portions
from indexer.drain.round_robin import RoundRobin
from indexer.drain.standby import Misses
from infra import logs
from infra.index import documents, mapping, naming
from infra.index.ownership import OwnerCheck

log = structlog.get_logger()
_owner = OwnerCheck()

ROUND_SECONDS = 8.0
"""Time limit until the write. A slower round is given up, because locks may be lost and rows outdated."""
CONTROL_DOCUMENTS = 5
"""Number of unchanged documents written as a test, if the index refused every document of a round."""


class Round(NamedTuple):
    """The result of a round, as in the log."""

    rows: int = 0
    left: int = 0
    """Consumers of claimed rows left for a later round."""
    documents: int = 0
    bytes: int = 0
    conflicts: int = 0
    failed: int = 0
    milliseconds: int = 0
    oldest_ms: int = 0
    requests: Sequence[str] = ()


def drain_round(
    connection: sa.Connection,
    client: OpenSearch,
    lane: str = "live",
    rows: int = claims.ROWS,
    turns: RoundRobin | None = None,
) -> Round:
    """Run a round in a transaction.

    Args:
        connection: a connection without an open transaction.
        client: a client with answers as JSON text.
        lane: `live` or `bulk`.
        rows: maximum of outbox rows to claim. If OpenSearch refuses the only row of a round, while unchanged documents
            can be written, then any error counts as a failure of the row.
        turns: the turns of the lane's environments; by default the environment with the oldest change comes first.

    Raises:
        IndexUnavailable, OpenSearchException: the index is unavailable. No row was deleted, no failure recorded.
        ForeignIndexError: the live index belongs to another installation.
        DBAPIError: the database is unavailable.
    """
    started = time.monotonic()
    turns = turns or RoundRobin()
    with connection.begin():
        if turns.cursor is None:
            turns.cursor = (claims.longest_waiting_environment(connection, lane) or 1) - 1
        claim = claims.claim(connection, lane, rows, turns.cursor, turns.rests.resting)
        if not claim.rows:
            return Round()
        live, standbys = targets(connection)
        _owner.require_own(connection, client, live.index_name)
        turns.begin(claim.queues, others_wait=claim.others_wait)
        portions = Portions(connection, claim, turns)
        items: list[Item] = []
        with standby.writers(client, standbys) as writers:
            for portion in portions:
                if time.monotonic() - started > ROUND_SECONDS:
                    raise IndexUnavailable("the round took too long before its write")
                for writer in writers:
                    writer.write(portion)
                items += write_documents(
                    connection, client, live, portion, is_alone=claim.is_single, is_searchable=portions.is_single
                )
        make_searchable(client, live, items, is_refreshed=portions.is_single)
        misses = standby.collect_misses(writers)
        counts = forget(connection, lane, claim, portions.batch, items, portions.failures, misses)
        counters.record(connection, lane, counts)
    seconds = time.monotonic() - started
    turns.rests.note_round(turns.bytes, seconds, left=turns.left)
    return Round(
        claim.rows,
        turns.left,
        len(portions.batch),
        portions.bytes,
        counts.conflicts,
        counts.failures,
        round(seconds * 1000),
        round(claim.oldest_ms),
        claim.request_ids,
    )


def targets(connection: sa.Connection) -> tuple[Generation, list[Generation]]:
    """Return the live generation, which decides about outbox rows, and the standby generations.

    Raises:
        IndexUnavailable: there is no live generation, or newer code built the live generation.
    """
    generations = claims.targets(connection)
    if not generations or not generations[0].is_live:
        raise IndexUnavailable("there is no live index")
    live, *standbys = generations
    if live.document_version > mapping.DOCUMENT_VERSION:
        raise IndexUnavailable(f"{live.index_name} was built by newer code than this worker's")
    return live, standbys


def write_documents(
    connection: sa.Connection,
    client: OpenSearch,
    live: Generation,
    batch: list[Document],
    *,
    is_alone: bool,
    is_searchable: bool,
) -> list[Item]:
    """Write the documents to the live generation; return an answer for each document.

    Args:
        connection: of the round.
        client: a client with answers as JSON text.
        live: the live generation.
        batch: the documents.
        is_alone: whether the only document is the cause if the request is refused, while unchanged documents can be
            written.
        is_searchable: whether the documents must be searchable afterwards.

    Raises:
        IndexUnavailable, OpenSearchException: the index is the cause of the failure, and not a document.
    """
    alias = naming.write_alias(live.index_name)
    try:
        items = write(client, alias, convert_all(batch, live), is_searchable=is_searchable)
    except OpenSearchException as error:
        # Without an answer a node or the network is the cause, even if the next node takes other documents.
        if not is_alone or isinstance(error, NoAnswer) or not _accepts_control_documents(connection, client, live):
            raise
        return [Item.refused(logs.error_kind(error))]
    for item in items:
        if item.is_index_unavailable:
            raise IndexUnavailable(item.error_kind)
    refused = [item for item in items if item.is_refused]
    if refused and len(refused) == len(items):
        accepted = _accepts_control_documents(connection, client, live)
        # Without control documents the status decides: a 400 is caused by a document, a 500 may be caused by the index.
        if accepted is False or (accepted is None and any(item.is_server_error for item in refused)):
            raise IndexUnavailable(f"every document is refused: {refused[0].error_kind}")
    return items


def _accepts_control_documents(connection: sa.Connection, client: OpenSearch, live: Generation) -> bool | None:
    """Whether unchanged documents can be written again. None if every consumer has a change in the outbox."""
    batch = []
    for row, audience_ids in claims.consumers_without_changes(connection, CONTROL_DOCUMENTS):
        with suppress(Exception):
            batch.append(Document(row.environment_id, row.id, row.version, documents.document(row, audience_ids)))
    if not batch:
        return None
    try:
        items = write(client, naming.write_alias(live.index_name), convert_all(batch, live))
    except OpenSearchException:
        return False
    return any(item.is_indexed for item in items)


def make_searchable(client: OpenSearch, live: Generation, items: Sequence[Item], *, is_refreshed: bool) -> None:
    """Refresh the live generation, unless the only request of the round has done so, and has written every document.

    A request refreshes the shards with a new document only. If another drain has written a newer document, it may have
    been killed before its refresh. A refresh also fails if the index, and not its documents, is at fault.

    Raises:
        IndexUnavailable, OpenSearchException: the refresh failed.
    """
    if not (is_refreshed and items and all(item.is_written for item in items)):
        refresh(client, live.index_name)


def forget(
    connection: sa.Connection,
    lane: str,
    claim: claims.Claim,
    batch: list[Document],
    items: list[Item],
    failures: list[Failure],
    misses: list[Misses],
) -> counters.RoundCounts:
    """Delete the outbox rows of searchable changes; record failures, and the misses of the standby generations."""
    indexed: dict[str, int] = {}
    ahead: claims.Versions = {}
    accepted = conflicts = 0
    for document, item in zip(batch, items, strict=True):
        indexed_version = item.indexed_version(claims.VERSION_LIMIT)
        if item.is_refused or indexed_version is None:
            failures.append(Failure(document.consumer_id, document.version, item.reason))
            continue
        conflicts += item.is_conflict
        accepted += not item.is_conflict
        if item.is_conflict:
            ahead[document.consumer_id] = (document.environment_id, indexed_version)
        indexed[document.consumer_id] = max(document.version, claim.versions[document.consumer_id][1])
    for consumer_id in claims.raise_versions(connection, lane, ahead):
        # The index was ahead of the database, so the change is not indexed. The rows stay for the raised version.
        del indexed[consumer_id]
    for failure in failures:
        claims.record_failure(connection, *failure)
        kind = failure.reason.partition(":")[0]
        log.error("document_refused", consumer=failure.consumer_id, version=failure.version, kind=kind)
    forgotten = [
        document._replace(version=indexed[document.consumer_id])
        for document in batch
        if document.consumer_id in indexed
    ]
    standby.record_misses(connection, misses, forgotten)
    return counters.RoundCounts(accepted, conflicts, len(failures), claims.delete_indexed(connection, indexed))
