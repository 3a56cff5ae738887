"""Count the work of the drain, in the transaction of each round.

So a repeated round counts once, and a killed worker loses no count. `infra/operations/counters.py` reads the totals.
"""

import os
import socket
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from infra.operations.counters import DELAY_BOUNDS, ENDED_WORKERS, PART

MICROSECONDS = tuple(round(bound * 1_000_000) for bound in DELAY_BOUNDS)
HOST = socket.gethostname()
ROUNDS_OF_A_ROW = 200
"""Rounds a session counts in a row. Each round leaves a dead version of the row, which a held snapshot keeps."""

ADD_COUNTS = """
    rounds = t.rounds + excluded.rounds, changes = t.changes + excluded.changes,
    documents = t.documents + excluded.documents, conflicts = t.conflicts + excluded.conflicts,
    failures = t.failures + excluded.failures, delay_microseconds = t.delay_microseconds + excluded.delay_microseconds,
    delay_buckets = ARRAY(
        SELECT u.stored + u.added
        FROM unnest(t.delay_buckets, excluded.delay_buckets) WITH ORDINALITY AS u (stored, added, bound)
        ORDER BY u.bound),
    updated_at = greatest(t.updated_at, excluded.updated_at)"""
# Each session has its own rows and a single transaction at a time, so sessions never wait for each other here.
RECORD = sa.text(f"""
    INSERT INTO indexer_counters AS t
        (worker, lane, rounds, changes, documents, conflicts, failures, delay_microseconds, delay_buckets)
    VALUES (concat_ws('/', nullif(current_setting('application_name'), ''), CAST(:process AS text), pg_backend_pid()),
        :lane, :rounds, :changes, :documents, :conflicts, :failures, :delay_microseconds, :delay_buckets)
    ON CONFLICT (worker, lane) DO UPDATE SET {ADD_COUNTS}""")
# A single statement, so a concurrent reader of the totals never misses the moved counts.
FOLD = sa.text(f"""
    WITH idle AS (
        SELECT worker, lane FROM indexer_counters
        WHERE worker <> :ended AND updated_at < now() - interval '1 hour' LIMIT :rows FOR UPDATE SKIP LOCKED),
    removed AS (
        DELETE FROM indexer_counters c USING idle s WHERE c.worker = s.worker AND c.lane = s.lane RETURNING c.*),
    folded AS (
        INSERT INTO indexer_counters AS t
            (worker, lane, rounds, changes, documents, conflicts, failures, delay_microseconds, updated_at,
             delay_buckets)
        SELECT :ended, g.lane, sum(g.rounds), sum(g.changes), sum(g.documents), sum(g.conflicts), sum(g.failures),
            sum(g.delay_microseconds), max(g.updated_at),
            (SELECT array_agg(b.number ORDER BY b.bound)
             FROM (SELECT u.bound, sum(u.number)::bigint AS number
                   FROM removed, unnest(removed.delay_buckets) WITH ORDINALITY AS u (number, bound)
                   WHERE removed.lane = g.lane GROUP BY u.bound) b)
        FROM removed g GROUP BY g.lane ORDER BY g.lane
        ON CONFLICT (worker, lane) DO UPDATE SET {ADD_COUNTS})
    SELECT count(*) FROM removed""")


class RoundCounts(NamedTuple):
    """Counts of a round."""

    documents: int
    """Documents the index accepted."""
    conflicts: int
    """Documents not accepted, because the index holds a newer version."""
    failures: int
    """Documents refused."""
    delays: Mapping[str, Sequence[int]]
    """By lane of the change (not of the round): microseconds from each change until the change was searchable."""


def record(connection: sa.Connection, lane: str, round_counts: RoundCounts) -> None:
    """Add the counts of a round in a lane, in the transaction of the round."""
    counts = {
        "rounds": 1,
        "documents": round_counts.documents,
        "conflicts": round_counts.conflicts,
        "failures": round_counts.failures,
    }
    connection.info["rounds"] = number = connection.info.get("rounds", -1) + 1
    process, zeros = f"{HOST}:{os.getpid()}{PART}{number // ROUNDS_OF_A_ROW}", dict.fromkeys(counts, 0)
    rows = [
        {
            "process": process,
            "lane": counted_lane,
            **(counts if counted_lane == lane else zeros),
            **_delay_columns(round_counts.delays.get(counted_lane, ())),
        }
        for counted_lane in {lane, *round_counts.delays}
    ]
    connection.execute(RECORD, rows)


def _delay_columns(delays: Sequence[int]) -> dict[str, int | list[int]]:
    buckets = [0] * (len(MICROSECONDS) + 1)
    for delay in delays:
        buckets[bisect_left(MICROSECONDS, delay)] += 1
    return {"changes": len(delays), "delay_microseconds": sum(delays), "delay_buckets": buckets}


def fold(connection: sa.Connection, rows: int) -> int:
    """Merge up to `rows` rows of sessions without a round for an hour into a row for each lane.

    Returns:
        The number of merged rows.
    """
    folded: int = connection.execute(FOLD, {"ended": ENDED_WORKERS, "rows": rows}).scalar_one()
    return folded
