"""What the indexer has done, of all its processes together; `indexer/drain/counters.py` counts.

A row for each session of a worker and lane, whose numbers only ever grow. What is told is their sum.
"""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from infra.operations.outbox import LANES

DELAY_BOUNDS = (0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds from a change to its being searchable, by which changes are counted; other bounds need a migration."""
ENDED_WORKERS = "ended"
"""Stands for all workers that have not been heard of for long."""
MAX_WORKERS = 20

TOTALS = sa.text("""
    SELECT l.lane, t.*, (
        SELECT coalesce(array_agg(b.number ORDER BY b.bound), array_fill(0::bigint, ARRAY[CAST(:buckets AS int)]))
        FROM (SELECT u.bound, sum(u.number)::bigint AS number
              FROM indexer_counters c, unnest(c.delay_buckets) WITH ORDINALITY AS u (number, bound)
              WHERE c.lane = l.lane GROUP BY u.bound) b) AS delay_buckets
    FROM unnest(CAST(:lanes AS text[])) AS l (lane) CROSS JOIN LATERAL (
        SELECT coalesce(sum(rounds), 0)::bigint AS rounds, coalesce(sum(changes), 0)::bigint AS changes,
            coalesce(sum(documents), 0)::bigint AS documents, coalesce(sum(conflicts), 0)::bigint AS conflicts,
            coalesce(sum(failures), 0)::bigint AS failures,
            coalesce(sum(delay_microseconds), 0) / 1000000::float8 AS delay_seconds, max(updated_at) AS updated_at
        FROM indexer_counters c WHERE c.lane = l.lane) t""")
BY_WORKER = sa.text("""
    SELECT worker, lane, rounds, changes, updated_at FROM indexer_counters WHERE worker <> :ended
    ORDER BY updated_at DESC LIMIT :most""")


class Totals(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Of one lane."""

    lane: str
    rounds: int
    changes: int
    """Rows of the outbox whose change became searchable."""
    documents: int
    """Documents the index took."""
    conflicts: int
    """Documents it did not take, for it held newer ones."""
    failures: int
    """Documents it refused for what they are; each attempt counts."""
    delay_seconds: float
    delay_buckets: list[int]
    """How many changes were searchable within each of `DELAY_BOUNDS` and not within the one before; the last: later."""
    updated_at: datetime | None
    """When anything was last done."""


class Worker(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A session of a process that drains; it is known for an hour after its last round."""

    worker: str
    lane: str
    rounds: int
    changes: int
    updated_at: datetime


def totals(connection: sa.Connection) -> list[Totals]:
    """What was done since the database was made, by lane."""
    rows = connection.execute(TOTALS, {"lanes": list(LANES), "buckets": len(DELAY_BOUNDS) + 1})
    return [msgspec.convert(row, Totals, from_attributes=True) for row in rows]


def workers(connection: sa.Connection) -> list[Worker]:
    """Those who indexed something lately, the latest first."""
    rows = connection.execute(BY_WORKER, {"ended": ENDED_WORKERS, "most": MAX_WORKERS})
    return [msgspec.convert(row, Worker, from_attributes=True) for row in rows]
