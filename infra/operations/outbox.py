"""The outbox for operators: the backlog, parked changes, and the retry of parked changes.

The statements of the drain are in `indexer/drain/claims.py`.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa

from infra.database.floors import USE_INDEX_ORDER, WAITING, all_waiting, first_waiting, floor, is_near

LANES = ("live", "bulk")
COUNT_LIMIT = 100_000
"""Limit of every count, so counting stays cheap while the outbox is large."""
MANY = 1000
"""Environments that are compared, 10 µs each. With more, the time would grow with the number of merchants."""


def _oldest(lane: str) -> str:
    """Return a query for the time of the oldest change of a lane that is not refused.

    With many rows behind the floor, the query takes one step for each environment, regardless of the number of rows. If
    many environments wait, it reads the first waiting row alone: rows are numbered in the order of their changes.
    """
    return f"""
        WITH RECURSIVE heads AS (
            (SELECT environment_id, created_at FROM outbox WHERE lane = {lane} AND {WAITING} AND seq >= {floor(lane)}
             ORDER BY environment_id, seq LIMIT 1)
            UNION ALL
            SELECT next.* FROM heads h CROSS JOIN LATERAL (
                SELECT environment_id, created_at FROM outbox o
                WHERE lane = {lane} AND {WAITING} AND seq >= {floor(lane)} AND o.environment_id > h.environment_id
                ORDER BY environment_id, seq LIMIT 1) next)
        SELECT CASE
            WHEN {is_near(lane)} THEN (SELECT min(created_at) FROM ({all_waiting("created_at", lane)}) AS waiting)
            ELSE (SELECT CASE WHEN count(*) > {MANY} THEN ({first_waiting("created_at", lane)}) ELSE min(created_at) END
                FROM (SELECT created_at FROM heads LIMIT {MANY} + 1) AS few) END"""


def _retried(columns: str, lane: str) -> str:
    """Return a query for the refused changes of a lane that will be tried again."""
    return f"""
        SELECT {columns} FROM outbox WHERE lane = {lane} AND parked_at IS NULL AND retry_at IS NOT NULL
        ORDER BY retry_at LIMIT {COUNT_LIMIT}"""


# The statement contains the names of the lanes, so the planner can estimate the rows of each lane. Parked rows are read
# in the order of their index, because otherwise the planner may scan the whole table for a few rows.
def _backlog_of(lane: str) -> str:
    return f"""
        SELECT {lane} AS lane,
            CASE WHEN {is_near(lane)} THEN (SELECT count(*) FROM ({all_waiting("", lane)}) AS waiting)
                ELSE (SELECT count(*) FROM (
                    SELECT FROM outbox WHERE lane = {lane} AND {WAITING} AND seq >= {floor(lane)}
                    ORDER BY environment_id, seq LIMIT :count_limit) AS waiting) END
            + retried.count AS waiting,
            retried.count AS refused,
            coalesce(extract(epoch FROM clock_timestamp() - ({_oldest(lane)})), 0)::float8 AS oldest_seconds,
            (SELECT count(*) FROM parked WHERE lane = {lane}) AS parked
        FROM (SELECT count(*) FROM ({_retried("", lane)}) AS refused) AS retried"""


BACKLOG = sa.text(
    """
    WITH parked AS MATERIALIZED (
        SELECT lane FROM outbox WHERE parked_at IS NOT NULL ORDER BY environment_id, created_at LIMIT :count_limit)"""
    + " UNION ALL ".join(_backlog_of(f"'{lane}'") for lane in LANES)
)
LIVE_LAG_MS = sa.text(f"""
    SELECT coalesce(extract(epoch FROM clock_timestamp() - least(
        ({_oldest("'live'")}),
        (SELECT min(created_at) FROM ({_retried("created_at", "'live'")}) AS refused))) * 1000, 0)::bigint""")
"""Age in milliseconds of the oldest live change of all environments; 0 if none waits."""
PARKED = sa.text("""
    SELECT o.consumer_id, org.name AS organization, e.mode, o.version, o.attempts, o.error AS reason, o.created_at,
        o.parked_at
    FROM outbox o LEFT JOIN environments e ON e.id = o.environment_id
    LEFT JOIN organizations org ON org.id = e.organization_id
    WHERE o.parked_at IS NOT NULL ORDER BY o.parked_at DESC, o.seq DESC LIMIT :rows""")
RETRY = sa.text("""
    UPDATE outbox SET attempts = 0, retry_at = NULL, parked_at = NULL, error = NULL WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM outbox WHERE parked_at IS NOT NULL
            AND (CAST(:environment_id AS int) IS NULL OR environment_id = :environment_id)
            AND (CAST(:ids AS text[]) IS NULL OR consumer_id = ANY(:ids))
        FOR UPDATE SKIP LOCKED))""")


class Waiting(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The backlog of a lane. Counts end at 100,000; the limit of `parked` is for both lanes together."""

    lane: str
    """The lane, such as `live`."""
    waiting: int
    """Changes not searchable yet."""
    refused: int
    """Of these, changes whose document was refused and will be tried again."""
    oldest_seconds: float
    """Age of the oldest waiting change that is not refused; 0 without one."""
    parked: int
    """Parked changes: the document was refused too often, and is not retried automatically."""


class Parked(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A parked change: OpenSearch refused the document five times, because of its content."""

    consumer_id: str
    """The id of the consumer."""
    organization: str | None
    """The organization of the consumer; null if the consumer is deleted."""
    mode: str | None
    """`live` or `test`."""
    version: int
    """The version of the consumer after the change."""
    attempts: int
    """Refusals of the document."""
    reason: str | None
    """OpenSearch's reason. The reason may quote the document."""
    created_at: datetime
    """Time of the change."""
    parked_at: datetime
    """Time at which the change was parked."""


def backlog(connection: sa.Connection) -> list[Waiting]:
    """Return the backlog of each lane."""
    connection.execute(USE_INDEX_ORDER)
    rows = connection.execute(BACKLOG, {"count_limit": COUNT_LIMIT})
    return [msgspec.convert(row, Waiting, from_attributes=True) for row in rows]


def parked(connection: sa.Connection, rows: int) -> list[Parked]:
    """Return up to `rows` parked changes, the latest first."""
    result = connection.execute(PARKED, {"rows": rows})
    return [msgspec.convert(row, Parked, from_attributes=True) for row in result]


def retry(connection: sa.Connection, *, environment_id: int | None, ids: Sequence[str] | None) -> int:
    """Return parked rows to the drain, as if never tried; return the number of rows.

    Args:
        connection: in a transaction.
        environment_id: rows of this environment only; None for all environments.
        ids: rows of the consumers with these ids only; None for all consumers.
    """
    values = {"environment_id": environment_id, "ids": None if ids is None else list(ids)}
    return connection.execute(RETRY, values).rowcount
