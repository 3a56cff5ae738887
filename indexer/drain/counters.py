"""Counting what the drain does, in its own transactions: what is counted is in the index, and the other way round."""

import os
import socket
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from infra.operations.counters import DELAY_BOUNDS, ENDED_WORKERS

MICROSECONDS = tuple(round(bound * 1_000_000) for bound in DELAY_BOUNDS)
HOST = socket.gethostname()

ADDED = """
    rounds = t.rounds + excluded.rounds, changes = t.changes + excluded.changes,
    documents = t.documents + excluded.documents, conflicts = t.conflicts + excluded.conflicts,
    failures = t.failures + excluded.failures, delay_microseconds = t.delay_microseconds + excluded.delay_microseconds,
    delay_buckets = ARRAY(
        SELECT mine + more FROM unnest(t.delay_buckets, excluded.delay_buckets) WITH ORDINALITY AS u (mine, more, bound)
        ORDER BY bound),
    updated_at = greatest(t.updated_at, excluded.updated_at)"""
# A row is its session's own, and a session is in one transaction at a time.
RECORD = sa.text(f"""
    INSERT INTO indexer_counters AS t
        (worker, lane, rounds, changes, documents, conflicts, failures, delay_microseconds, delay_buckets)
    VALUES (concat_ws('/', nullif(current_setting('application_name'), ''), CAST(:process AS text), pg_backend_pid()),
        :lane, :rounds, :changes, :documents, :conflicts, :failures, :delay_microseconds, :delay_buckets)
    ON CONFLICT (worker, lane) DO UPDATE SET {ADDED}""")
# In one statement, so that whoever adds up all rows meanwhile finds the same before, during and after.
FOLD = sa.text(f"""
    WITH silent AS (
        SELECT worker, lane FROM indexer_counters
        WHERE worker <> :ended AND updated_at < now() - interval '1 hour' LIMIT :rows FOR UPDATE SKIP LOCKED),
    gone AS (
        DELETE FROM indexer_counters c USING silent s WHERE c.worker = s.worker AND c.lane = s.lane RETURNING c.*),
    folded AS (
        INSERT INTO indexer_counters AS t
            (worker, lane, rounds, changes, documents, conflicts, failures, delay_microseconds, updated_at,
             delay_buckets)
        SELECT :ended, g.lane, sum(g.rounds), sum(g.changes), sum(g.documents), sum(g.conflicts), sum(g.failures),
            sum(g.delay_microseconds), max(g.updated_at),
            (SELECT array_agg(b.number ORDER BY b.bound)
             FROM (SELECT u.bound, sum(u.number)::bigint AS number
                   FROM gone, unnest(gone.delay_buckets) WITH ORDINALITY AS u (number, bound)
                   WHERE gone.lane = g.lane GROUP BY u.bound) b)
        FROM gone g GROUP BY g.lane ORDER BY g.lane
        ON CONFLICT (worker, lane) DO UPDATE SET {ADDED})
    SELECT count(*) FROM gone""")


class RoundCounts(NamedTuple):
    """What a round did."""

    documents: int
    """Those that the index took."""
    conflicts: int
    """Those for which it held something newer."""
    failures: int
    """Those it refused."""
    delays: Mapping[str, Sequence[int]]
    """Of the changes that became searchable, by their lane, which may be another than the round's; microseconds."""


def record(connection: sa.Connection, lane: str, done: RoundCounts) -> None:
    """Count a round of a lane, in its transaction."""
    counts = {"rounds": 1, "documents": done.documents, "conflicts": done.conflicts, "failures": done.failures}
    process, nothing = f"{HOST}:{os.getpid()}", dict.fromkeys(counts, 0)
    rows = [
        {
            "process": process,
            "lane": each,
            **(counts if each == lane else nothing),
            **_delays(done.delays.get(each, ())),
        }
        for each in {lane, *done.delays}
    ]
    connection.execute(RECORD, rows)


def _delays(delays: Sequence[int]) -> dict[str, int | list[int]]:
    buckets = [0] * (len(MICROSECONDS) + 1)
    for delay in delays:
        buckets[bisect_left(MICROSECONDS, delay)] += 1
    return {"changes": len(delays), "delay_microseconds": sum(delays), "delay_buckets": buckets}


def fold(connection: sa.Connection, rows: int) -> int:
    """Add the counts of workers that were silent for an hour into one row a lane; answer how many rows went."""
    folded: int = connection.execute(FOLD, {"ended": ENDED_WORKERS, "rows": rows}).scalar_one()
    return folded
