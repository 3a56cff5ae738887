"""What is on its way to the index, and what was given up; the drain's own statements: `indexer/drain/claims.py`."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa

LANES = ("live", "bulk")
COUNT_LIMIT = 100_000
"""Rows are counted up to here: it must stay cheap to ask when there are most of them."""

# Lanes are named in the statement, so that the planner knows how many rows one has.
_LANE = """
    SELECT '{lane}' AS lane,
        (SELECT count(*) FROM (
            SELECT FROM outbox WHERE lane = '{lane}' AND parked_at IS NULL LIMIT :most) AS waiting) AS waiting,
        (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
         FROM heads WHERE lane = '{lane}') AS oldest_seconds,
        (SELECT count(*) FROM parked WHERE lane = '{lane}') AS parked"""
# The oldest of a lane is found by one step an environment, however many rows wait. Those given up are read in the
# order of their own index, or else the planner may read the whole table for the few.
BACKLOG = sa.text(
    """
    WITH RECURSIVE heads AS (
        (SELECT lane, environment_id, created_at FROM outbox WHERE parked_at IS NULL
         ORDER BY lane, environment_id, seq LIMIT 1)
        UNION ALL
        SELECT next.* FROM heads h CROSS JOIN LATERAL (
            SELECT lane, environment_id, created_at FROM outbox o
            WHERE parked_at IS NULL AND (o.lane, o.environment_id) > (h.lane, h.environment_id)
            ORDER BY lane, environment_id, seq LIMIT 1) next),
    parked AS MATERIALIZED (
        SELECT lane FROM outbox WHERE parked_at IS NOT NULL ORDER BY environment_id, created_at LIMIT :most)"""
    + " UNION ALL ".join(_LANE.format(lane=lane) for lane in LANES)
)
LIVE_LAG_MS = sa.text("""
    WITH RECURSIVE heads AS (
        (SELECT environment_id, created_at FROM outbox WHERE parked_at IS NULL AND lane = 'live'
         ORDER BY environment_id, seq LIMIT 1)
        UNION ALL
        SELECT next.* FROM heads h CROSS JOIN LATERAL (
            SELECT environment_id, created_at FROM outbox o
            WHERE parked_at IS NULL AND lane = 'live' AND o.environment_id > h.environment_id
            ORDER BY environment_id, seq LIMIT 1) next)
    SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)) * 1000, 0)::bigint FROM heads""")
"""Age in milliseconds of the oldest live change of all environments; 0 if there is none."""
PARKED = sa.text("""
    SELECT o.consumer_id, org.name AS organization, e.mode, o.version, o.attempts, o.error AS reason, o.created_at,
        o.parked_at
    FROM outbox o LEFT JOIN environments e ON e.id = o.environment_id
    LEFT JOIN organizations org ON org.id = e.organization_id
    WHERE o.parked_at IS NOT NULL ORDER BY o.parked_at DESC, o.seq DESC LIMIT :rows""")
RETRY = sa.text("""
    UPDATE outbox SET attempts = 0, retry_at = NULL, parked_at = NULL, error = NULL WHERE seq IN (
        SELECT seq FROM outbox WHERE parked_at IS NOT NULL
            AND (CAST(:environment_id AS int) IS NULL OR environment_id = :environment_id)
            AND (CAST(:ids AS text[]) IS NULL OR consumer_id = ANY(:ids))
        FOR UPDATE SKIP LOCKED)""")


class Waiting(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Of one lane. Counts end at `COUNT_LIMIT`, that of parked rows for both lanes together."""

    lane: str
    waiting: int
    oldest_seconds: float
    parked: int


class Parked(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A change that was given up: the document was refused for what it is, time and again."""

    consumer_id: str
    organization: str | None
    mode: str | None
    version: int
    attempts: int
    reason: str | None
    """As the index gave it; it may quote what was sent."""
    created_at: datetime
    parked_at: datetime


def backlog(connection: sa.Connection) -> list[Waiting]:
    """What is on its way, by lane."""
    rows = connection.execute(BACKLOG, {"most": COUNT_LIMIT})
    return [msgspec.convert(row, Waiting, from_attributes=True) for row in rows]


def parked(connection: sa.Connection, rows: int) -> list[Parked]:
    """What was given up, the latest first."""
    found = connection.execute(PARKED, {"rows": rows})
    return [msgspec.convert(row, Parked, from_attributes=True) for row in found]


def retry(connection: sa.Connection, *, environment_id: int | None, ids: Sequence[str] | None) -> int:
    """Let the drain try again what was given up, as if for the first time; answer how many rows.

    Args:
        connection: in a transaction.
        environment_id: of this one alone, if given.
        ids: of these consumers alone, if given.
    """
    values = {"environment_id": environment_id, "ids": None if ids is None else list(ids)}
    return connection.execute(RETRY, values).rowcount
