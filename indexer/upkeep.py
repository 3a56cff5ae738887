"""What is cleared in the background, in short transactions: expired keys, memberships of deleted audiences, the
counters of workers that ended.
"""

import sqlalchemy as sa

from indexer import counters

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


def expire_keys(engine: sa.Engine) -> int:
    """Delete idempotency keys older than a day, 5,000 at the most; answer how many."""
    deleted = 0
    for _ in range(TRANSACTIONS):
        with engine.begin() as connection:
            rows = connection.execute(EXPIRED, {"rows": ROWS}).rowcount
        deleted += rows
        if rows < ROWS:
            break
    return deleted


def clear_audiences(engine: sa.Engine) -> int:
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
