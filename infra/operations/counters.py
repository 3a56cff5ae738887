"""Counters of the indexer, summed over all processes. The writer is `indexer/drain/counters.py`.

Each session of a worker has a row for each lane, and begins another row after some rounds. The numbers in a row never
decrease, so the sums never decrease.
"""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from infra.operations.outbox import LANES

DELAY_BOUNDS = (0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the histogram of delays, in seconds. New bounds need a migration."""
ENDED_WORKERS = "ended"
"""Worker name in the row with the counts of all ended sessions of a lane."""
PART = "#"
"""Stands in the name of a worker before the number of the session's row."""
MAX_WORKERS = 20
"""Maximum of sessions listed in the status."""

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
BY_WORKER = sa.text(f"""
    SELECT regexp_replace(worker, '{PART}[0-9]+', '') AS worker, lane, sum(rounds)::bigint AS rounds,
        sum(changes)::bigint AS changes, max(updated_at) AS updated_at
    FROM indexer_counters WHERE worker <> :ended GROUP BY 1, 2 ORDER BY 5 DESC LIMIT :rows""")


class Totals(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Counters of a lane since the database was created."""

    lane: str
    """The lane, such as `live`."""
    rounds: int
    """Rounds of the drain with at least one claimed row."""
    changes: int
    """Outbox rows whose change became searchable."""
    documents: int
    """Documents the index accepted."""
    conflicts: int
    """Documents not accepted, because the index holds a newer version."""
    failures: int
    """Documents refused because of their content; each attempt counts."""
    delay_seconds: float
    """Sum of the delays of all changes, from the change until the change was searchable."""
    delay_buckets: list[int]
    """Number of changes by delay: up to 25 ms, 50 ms, …, 300 s; the last number counts longer delays."""
    updated_at: datetime | None
    """Time of the last such round."""


class Worker(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A session of a draining process, listed until an hour after the last round.

    The numbers lack rounds of more than an hour ago, which are counted in the totals only.
    """

    worker: str
    """The name of the process."""
    lane: str
    """The lane, such as `live`."""
    rounds: int
    """Rounds with at least one claimed row."""
    changes: int
    """Outbox rows whose change became searchable."""
    updated_at: datetime
    """Time of the last such round."""


def totals(connection: sa.Connection) -> list[Totals]:
    """Return the counters of each lane."""
    rows = connection.execute(TOTALS, {"lanes": list(LANES), "buckets": len(DELAY_BOUNDS) + 1})
    return [msgspec.convert(row, Totals, from_attributes=True) for row in rows]


def workers(connection: sa.Connection) -> list[Worker]:
    """Return the sessions with a round in the last hour, the latest round first."""
    rows = connection.execute(BY_WORKER, {"ended": ENDED_WORKERS, "rows": MAX_WORKERS})
    return [msgspec.convert(row, Worker, from_attributes=True) for row in rows]
