"""What is cleared in the background, in short transactions: expired keys, memberships of deleted audiences, the
counters of workers that ended, the documents of consumers that were deleted long ago.
"""

from typing import Any

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain import claims, counters
from infra.index import naming

ROWS = 1000
"""Rows of one transaction."""
TRANSACTIONS = 5
"""Transactions of one call, for drains wait behind it; beat calls again."""

EXPIRED = sa.text("""
    DELETE FROM idempotency_keys WHERE (environment_id, key) IN (
        SELECT environment_id, key FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
        ORDER BY created_at LIMIT :rows FOR UPDATE SKIP LOCKED)""")
BULK = sa.text("SELECT set_config('consumers.lane', 'bulk', true)")
DELETED = sa.text("""
    SELECT id FROM audiences WHERE deleted_at IS NOT NULL ORDER BY deleted_at LIMIT 1 FOR UPDATE SKIP LOCKED""")
# The consumers first and in id order, as every write that touches them.
MEMBERS = sa.text("""
    SELECT c.id FROM consumers c JOIN audience_members m ON m.consumer_id = c.id WHERE m.audience_id = :id
    ORDER BY c.id LIMIT :rows FOR NO KEY UPDATE OF c""")
REMOVE = sa.text("DELETE FROM audience_members WHERE audience_id = :id AND consumer_id = ANY(:consumers)")
GONE = sa.text("DELETE FROM audiences WHERE id = :id")


def delete_expired_keys(engine: sa.Engine) -> int:
    """Delete idempotency keys older than a day, 5,000 at the most; answer how many."""
    deleted = 0
    for _ in range(TRANSACTIONS):
        with engine.begin() as connection:
            rows = connection.execute(EXPIRED, {"rows": ROWS}).rowcount
        deleted += rows
        if rows < ROWS:
            break
    return deleted


def clear_deleted_audiences(engine: sa.Engine) -> int:
    """Remove deleted audiences with their memberships, in lane bulk, 5,000 at the most; answer how many memberships.

    Until then they are invisible to requests. Safe to run in several places, and to be killed.
    """
    cleared = 0
    for _ in range(TRANSACTIONS):
        with engine.begin() as connection:
            connection.execute(BULK)
            audience = connection.execute(DELETED).scalar_one_or_none()
            if audience is None:
                break
            members = list(connection.execute(MEMBERS, {"id": audience, "rows": ROWS}).scalars())
            if members:
                connection.execute(REMOVE, {"id": audience, "consumers": members})
            else:
                connection.execute(GONE, {"id": audience})
        cleared += len(members)
    return cleared


def fold_counters(engine: sa.Engine) -> int:
    """Add together the counters of sessions that were silent for an hour; answer how many rows that were."""
    with engine.begin() as connection:
        return counters.fold(connection, ROWS)


TOMBSTONE_DAYS = 7
PURGE_ROWS = 1000


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    seq_no: int = msgspec.field(name="_seq_no")
    primary_term: int = msgspec.field(name="_primary_term")


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Found(msgspec.Struct):
    hits: _Hits


class _Item(msgspec.Struct):
    status: int


class _Answer(msgspec.Struct):
    items: list[dict[str, _Item]] = []


def purge_tombstones(engine: sa.Engine, client: OpenSearch) -> int:
    """Remove some tombstones older than a week; answer how many.

    By then no older write can be on its way. Each goes only if it is still what was found, and only where nothing but
    the live generation is written: what is being built, or may be gone back to, needs every one of them.

    Args:
        engine: for one transaction; no generation changes its state meanwhile.
        client: whose answers are JSON text.

    Raises:
        OpenSearchException, DBAPIError: one of them does not answer.
    """
    with engine.begin() as connection:
        generations = claims.targets(connection)
        if len(generations) != 1 or not generations[0].is_live:
            return 0
        index = generations[0].index_name
        old = [{"term": {"deleted": True}}, {"range": {"deletedAt": {"lt": f"now-{TOMBSTONE_DAYS}d"}}}]
        body = {
            "query": {"bool": {"filter": old}},
            "size": PURGE_ROWS,
            "_source": False,
            "seq_no_primary_term": True,
        }
        answer: Any = client.search(index=index, body=body)
        hits = msgspec.json.decode(answer, type=_Found).hits.hits
        if not hits:
            return 0
        lines = [
            {"delete": {"_id": hit.id, "if_seq_no": hit.seq_no, "if_primary_term": hit.primary_term}} for hit in hits
        ]
        alias, content = naming.write_alias(index), b"\n".join(map(msgspec.json.encode, lines)) + b"\n"
        params = {"require_alias": "true", "refresh": "true", "filter_path": "items.*.status"}
        answer = client.bulk(body=content, index=alias, params=params)
    items = msgspec.json.decode(answer, type=_Answer).items
    return sum(item["delete"].status == 200 for item in items)  # noqa: PLR2004 (HTTP's success)
