"""Background clean-up in short transactions: expired idempotency keys, memberships of deleted audiences, counters of
ended sessions, old changes, tombstones of consumers deleted more than a week ago.
"""

import time
from typing import Any

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain import bulk, claims, counters
from infra.index import naming
from infra.index.hits import Hit, SearchResponse
from infra.wire import time as written_time

ROWS = 1000
"""Maximum of rows in a transaction."""
TRANSACTIONS = 5
"""Maximum of transactions in a call, because drains wait behind it. Beat calls again."""
TOMBSTONE_DAYS = 7
SECONDS = 2.0
"""Longest time of a call that deletes keys or tombstones: 5,000 writes a second leave as many keys a second."""
TOMBSTONES = 5000
"""Maximum of tombstones in a request."""

# The next statement begins at the last deleted key, because a held snapshot keeps the deleted keys before.
DELETE_EXPIRED_KEYS = [
    sa.text(f"""
        WITH deleted AS (
            DELETE FROM {table} WHERE ({owner}, key) IN (
                SELECT {owner}, key FROM {table}
                WHERE created_at >= CAST(:after AS timestamptz) AND created_at < now() - interval '24 hours'
                ORDER BY created_at LIMIT :rows FOR UPDATE SKIP LOCKED)
            RETURNING created_at)
        SELECT count(*) AS keys, max(created_at) AS last FROM deleted""")
    for table, owner in (("idempotency_keys", "environment_id"), ("operator_idempotency_keys", "operator_key_id"))
]
OLD_BYTES = 100_000
"""Maximum of counts of bytes deleted in a call. A count has up to 32 keys."""
# The table `idempotency_bytes` is of the release before.
DELETE_OLD_BYTES = [
    sa.text(f"""
        DELETE FROM {table} WHERE ctid = ANY (ARRAY (
            SELECT ctid FROM {table} WHERE day < CAST(now() AT TIME ZONE 'UTC' AS date) LIMIT {OLD_BYTES}))""")
    for table in ("idempotency_counts", "idempotency_bytes")
]
USE_BULK_LANE = sa.text("SELECT set_config('consumers.lane', 'bulk', true)")
DELETED_AUDIENCE = sa.text("""
    SELECT id FROM audiences WHERE deleted_at IS NOT NULL ORDER BY deleted_at LIMIT 1 FOR UPDATE SKIP LOCKED""")
# Locks consumers first and in the order of their ids, as every write to consumers does.
LOCK_MEMBERS = sa.text("""
    SELECT c.id FROM consumers c JOIN audience_members m ON m.consumer_id = c.id WHERE m.audience_id = :id
    ORDER BY c.id LIMIT :rows FOR NO KEY UPDATE OF c""")
DELETE_MEMBERS = sa.text("DELETE FROM audience_members WHERE audience_id = :id AND consumer_id = ANY(:consumers)")
TOMBSTONES_BEFORE = sa.text(f"SELECT now() - interval '{TOMBSTONE_DAYS} days'")
DELETE_AUDIENCE = sa.text("DELETE FROM audiences WHERE id = :id")

KEEP_CHANGES = sa.text("SELECT keep_changes(:days)")

_decode_hits = msgspec.json.Decoder(SearchResponse[Hit]).decode


def delete_expired_keys(engine: sa.Engine) -> int:
    """Delete idempotency keys of merchants and of operators older than a day, for up to `SECONDS` each.

    Counts of stored bytes of earlier days are deleted as well.

    Returns:
        The number of deleted keys.
    """
    with engine.begin() as connection:
        for delete in DELETE_OLD_BYTES:
            connection.execute(delete)
    return sum(_delete_keys(engine, statement) for statement in DELETE_EXPIRED_KEYS)


def _delete_keys(engine: sa.Engine, statement: sa.TextClause) -> int:
    deleted, after = 0, "-infinity"
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with engine.begin() as connection:
            keys, last = connection.execute(statement, {"after": after, "rows": ROWS}).one()
        deleted += keys
        if keys < ROWS:
            break
        after = last
    return deleted


def clear_deleted_audiences(engine: sa.Engine) -> int:
    """Delete up to 5,000 memberships of deleted audiences, and the audiences without memberships; return the number.

    The changes of the members use the bulk lane. Requests do not see deleted audiences meanwhile. Several processes may
    work at the same time, and any process may be killed.
    """
    deleted = 0
    for _ in range(TRANSACTIONS):
        with engine.begin() as connection:
            connection.execute(USE_BULK_LANE)
            audience = connection.execute(DELETED_AUDIENCE).scalar_one_or_none()
            if audience is None:
                break
            members = list(connection.execute(LOCK_MEMBERS, {"id": audience, "rows": ROWS}).scalars())
            if members:
                connection.execute(DELETE_MEMBERS, {"id": audience, "consumers": members})
            else:
                connection.execute(DELETE_AUDIENCE, {"id": audience})
        deleted += len(members)
    return deleted


def fold_counters(engine: sa.Engine) -> int:
    """Merge the counters of sessions without a round for an hour; return the number of merged rows."""
    with engine.begin() as connection:
        return counters.fold(connection, ROWS)


def keep_changes(engine: sa.Engine, days: int) -> None:
    """Add the coming partitions of the feed of changes, drop partitions older than `days`, and record the snapshot."""
    with engine.begin() as connection:
        connection.execute(KEEP_CHANGES, {"days": days})


def purge_tombstones(engine: sa.Engine, client: OpenSearch) -> int:
    """Remove tombstones older than a week from the live index, for up to `SECONDS`; return their number.

    After a week no older write of a deleted consumer can arrive. A tombstone is removed only if unchanged since the
    search, and only while the live generation is the only generation, because a generation being built or kept for a
    rollback needs every tombstone.

    Args:
        engine: for transactions. Each holds the barrier, so no generation changes its state meanwhile.
        client: a client with answers as JSON text.

    Raises:
        OpenSearchException, DBAPIError: OpenSearch or PostgreSQL is unavailable.
    """
    purged = 0
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        removed = _purge_page(engine, client)
        purged += removed
        if removed < TOMBSTONES:
            break
    return purged


def _purge_page(engine: sa.Engine, client: OpenSearch) -> int:
    with engine.begin() as connection:
        generations = claims.targets(connection)
        if len(generations) != 1 or not generations[0].is_live:
            return 0
        # The database's time wrote `deletedAt`, so it is compared with the database's time.
        before = written_time(connection.execute(TOMBSTONES_BEFORE).scalar_one())
        filters = [{"term": {"deleted": True}}, {"range": {"deletedAt": {"lt": before}}}]
        return delete_documents(client, generations[0].index_name, filters, TOMBSTONES)


def delete_documents(client: OpenSearch, index: str, filters: list[Any], documents: int) -> int:
    """Delete up to `documents` documents of an index that match all filters; return their number.

    A document that changes between the search and the deletion stays.

    Raises:
        OpenSearchException: OpenSearch is unavailable.
    """
    body = {
        "query": {"bool": {"filter": filters}},
        "size": documents,
        "_source": False,
        "seq_no_primary_term": True,
    }
    answer: Any = client.search(index=index, body=body)
    hits = _decode_hits(answer).hits.hits
    if not hits:
        return 0
    items = bulk.delete_unchanged(client, naming.write_alias(index), hits, refresh="true")
    return sum(item.status == bulk.OK for item in items)
