"""The drain: from the outbox to the index, without losing or reordering a change.

One round claims rows, reads their consumers as they are *now*, writes those, makes them searchable, and only then
forgets the rows. Killed anywhere, it happens again; versions settle every race between drains.
"""

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch

from indexer import claims
from infra import documents

log = structlog.get_logger()

ROUND_SECONDS = 8.0
"""A round older than this is given up before it writes: its locks may be gone, and its rows old."""
MAX_BYTES = 8 * 1024 * 1024
CONFLICT, DOCUMENT_FAULT = 409, 400
CURRENT_VERSION = re.compile(r"current version \[(\d+)\]")


class PlaceError(Exception):
    """The index cannot be written just now, whatever the documents."""


class Round(NamedTuple):
    rows: int = 0
    documents: int = 0
    conflicts: int = 0
    failed: int = 0
    milliseconds: int = 0
    oldest_ms: int = 0
    requests: Sequence[str] = ()


class Written(NamedTuple):
    environment_id: int
    consumer_id: str
    version: int
    source: bytes


class ItemError(msgspec.Struct):
    type: str = ""
    reason: str = ""


class Item(msgspec.Struct):
    status: int
    error: ItemError | None = None


class BulkAnswer(msgspec.Struct):
    items: list[dict[str, Item]] = []


def drain_round(connection: sa.Connection, client: OpenSearch, rows: int = claims.ROWS) -> Round:
    """One round, in one transaction.

    Args:
        connection: not in a transaction.
        client: whose answers are JSON text.
        rows: how many outbox rows to take at the most.

    Raises:
        PlaceError, OpenSearchException: the index is away; nothing was forgotten or counted against a document.
        DBAPIError: the database is.
    """
    started = time.monotonic()
    with connection.begin():
        claim = claims.claim(connection, rows)
        if not claim.rows:
            return Round()
        generation = claims.target(connection)
        if generation is None:
            raise PlaceError("there is no live index")
        index, document_version = generation
        if document_version > documents.DOCUMENT_VERSION:
            raise PlaceError(f"{index} was built by newer code than this worker's")
        batch = _documents(connection, claim)
        if time.monotonic() - started > ROUND_SECONDS:
            raise PlaceError("the round took too long before its write")
        items = _write(client, documents.write_alias(index), batch)
        _refresh(client, index)
        conflicts, failed = _settle(connection, claim, batch, items)
    return Round(
        claim.rows,
        len(batch),
        conflicts,
        failed,
        round((time.monotonic() - started) * 1000),
        round(claim.oldest_ms),
        claim.requests,
    )


def _documents(connection: sa.Connection, claim: claims.Claim) -> list[Written]:
    """What the index should say of each claimed consumer: its row, or that it is gone."""
    rows = claims.current(connection, list(claim.versions))
    now = datetime.now(UTC)
    batch = []
    for consumer_id, (environment_id, version) in claim.versions.items():
        if found := rows.get(consumer_id):
            source = documents.document(found.row, found.audience_ids)
            batch.append(Written(found.row.environment_id, consumer_id, found.row.version, source))
        else:
            source = documents.tombstone(consumer_id, environment_id, version, now)
            batch.append(Written(environment_id, consumer_id, version, source))
    return batch


def _write(client: OpenSearch, alias: str, batch: list[Written]) -> list[Item]:
    """Send the documents; an older one never replaces a newer. Answers an item a document, in order."""
    items: list[Item] = []
    part: list[bytes] = []
    size = 0
    for written in batch:
        action = {"_id": written.consumer_id, "version": written.version, "version_type": "external_gte"}
        part += [msgspec.json.encode({"index": action}), written.source]
        size += len(written.source)
        if size >= MAX_BYTES:
            items += _bulk(client, alias, part)
            part, size = [], 0
    return items + _bulk(client, alias, part) if part else items


def _bulk(client: OpenSearch, alias: str, lines: list[bytes]) -> list[Item]:
    answer: Any = client.bulk(
        body=b"\n".join(lines) + b"\n",
        index=alias,
        params={"require_alias": "true", "filter_path": "items.*.status,items.*.error.type,items.*.error.reason"},
    )
    return [item["index"] for item in msgspec.json.decode(answer, type=BulkAnswer).items]


def _refresh(client: OpenSearch, index: str) -> None:
    answer: Any = client.indices.refresh(index=index)
    shards = msgspec.json.decode(answer)["_shards"]
    if shards["failed"] or not shards["successful"]:
        raise PlaceError(f"a refresh failed on {shards['failed']} of {shards['total']} shards")


def _indexed(reason: str) -> int | None:
    """The version a refused document met in the index; None if it is one that no row can pass."""
    found = CURRENT_VERSION.search(reason)
    return int(found[1]) if found and int(found[1]) < claims.HIGHEST else None


def _settle(connection: sa.Connection, claim: claims.Claim, batch: list[Written], items: list[Item]) -> tuple[int, int]:
    """Forget what is searchable now; the rest stays, to be written again. Returns conflicts and failures."""
    done: dict[str, int] = {}
    ahead: list[tuple[Written, int]] = []
    failed = 0
    for written, item in zip(batch, items, strict=True):
        reason = f"{item.error.type}: {item.error.reason}" if item.error else ""
        if item.status < 300:  # noqa: PLR2004 (HTTP's successes)
            done[written.consumer_id] = max(written.version, claim.versions[written.consumer_id][1])
        elif item.status == CONFLICT and (indexed := _indexed(reason)) is not None:
            ahead.append((written, indexed))
            done[written.consumer_id] = max(written.version, claim.versions[written.consumer_id][1])
        elif item.status in {CONFLICT, DOCUMENT_FAULT}:
            failed += 1
            claims.record_failure(connection, written.consumer_id, written.version, reason)
            # The reason quotes what was sent; it stands in the outbox, for those who may see that.
            kind = item.error and item.error.type
            log.error("document_refused", consumer=written.consumer_id, version=written.version, kind=kind)
        else:
            raise PlaceError(f"a document was answered {item.status} {item.error.type if item.error else ''}")
    claims.forget(connection, done)
    # Only now: a version that is raised leaves a row of its own.
    for written, indexed in ahead:
        claims.step_over(connection, written.environment_id, written.consumer_id, indexed)
    return len(ahead), failed
