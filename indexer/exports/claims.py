"""Claim, record and end exports: the writes of workers to the table `exports`.

A worker claims an export as a whole: after a kill half-way, the export begins anew, because the snapshot is gone. The
heartbeat shows a living worker. Claims of an export are numbered, and a worker with an old number, or of a deleted
export, cannot record anything.
"""

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from infra.exports.requests import ExportFile, Format
from infra.exports.tables import TableName

LOST_SECONDS = 30
"""Seconds without a heartbeat until a claim is lost: the worker was killed."""
MAX_ATTEMPTS = 5
RETRY_SECONDS = 10
"""Pause after the first failed attempt; each further pause is longer by as much."""
LOCK = 0x6578706F
"""Advisory lock: two workers must not begin two exports of an environment at the same time."""

LOCK_CLAIMS = sa.text("SELECT pg_advisory_xact_lock(:lock)")
CLAIM = sa.text("""
    UPDATE exports x SET claim = x.claim + 1, attempts = x.attempts + 1, state = 'running', progress = 0, rows_read = 0,
        heartbeat_at = clock_timestamp(), started_at = coalesce(x.started_at, present())
    WHERE id = (
        SELECT w.id FROM exports w WHERE w.state IN ('queued', 'running')
            AND (w.heartbeat_at IS NULL OR w.heartbeat_at < clock_timestamp() - :lost * interval '1 second')
            AND coalesce(w.retry_at, '-infinity') <= clock_timestamp()
            AND NOT EXISTS (
                SELECT FROM exports other WHERE other.environment_id = w.environment_id AND other.state = 'running'
                    AND other.id <> w.id AND other.heartbeat_at > clock_timestamp() - :lost * interval '1 second')
        ORDER BY w.requested_at, w.id LIMIT 1)
        -- Checked again after a wait for the row: a request may have deleted the export.
        AND x.state IN ('queued', 'running')
    RETURNING id, environment_id, key_id, tables, format, personal, claim, attempts, coalesce(
        (SELECT spool_bytes FROM exports before
         WHERE before.environment_id = x.environment_id AND before.spool_bytes IS NOT NULL
         ORDER BY before.requested_at DESC LIMIT 1),
        (SELECT stored_mib * 1048576::bigint FROM environments e WHERE e.id = x.environment_id)) AS expected_bytes""")
BEAT = sa.text("""
    UPDATE exports SET heartbeat_at = clock_timestamp(), progress = :progress, rows_read = :rows_read
    WHERE id = :id AND claim = :claim AND state = 'running'""")
FINISH = sa.text("""
    UPDATE exports SET state = 'done', progress = 1, as_of = :as_of, members_as_of = :members_as_of, xid = :xid,
        epoch = CAST(:epoch AS uuid), lsn = CAST(:lsn AS pg_lsn), sums = CAST(:sums AS jsonb),
        files = CAST(:files AS jsonb), spool_bytes = :spool_bytes, heartbeat_at = NULL, finished_at = present(),
        expires_at = present() + :hours * interval '1 hour'
    WHERE id = :id AND claim = :claim AND state = 'running'""")
RELEASE = sa.text("""
    UPDATE exports SET state = 'queued', heartbeat_at = NULL, progress = 0,
        retry_at = clock_timestamp() + :pause * interval '1 second'
    WHERE id = :id AND claim = :claim AND state = 'running'""")
FAIL = sa.text("""
    UPDATE exports SET state = 'failed', heartbeat_at = NULL, progress = 0, error = :error, finished_at = present()
    WHERE id = :id AND claim = :claim AND state = 'running'""")

_encode = msgspec.json.Encoder(decimal_format="string").encode


class ClaimLost(Exception):  # noqa: N818 (names what happened to the claim, as the caller treats it)
    """The export was deleted, or another worker has claimed it."""


class ClaimedExport(msgspec.Struct, frozen=True, kw_only=True):
    """An export claimed by this worker."""

    id: str
    environment_id: int
    key_id: str | None
    tables: list[TableName]
    format: Format
    personal: bool
    claim: int
    attempts: int
    expected_bytes: int
    """Bytes of the last export's temporary files; without an export before, those of the stored rows."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an export."""

    as_of: datetime
    members_as_of: datetime | None
    xid: str
    epoch: str
    lsn: str
    sums: dict[str, dict[str, Any]]
    files: list[ExportFile]
    spool_bytes: int


def claim(engine: sa.Engine) -> ClaimedExport | None:
    """Claim the longest waiting export, or an export of a killed worker; None if there is none.

    An environment has a single running export.
    """
    with engine.begin() as connection:
        connection.execute(LOCK_CLAIMS, {"lock": LOCK})
        row = connection.execute(CLAIM, {"lost": LOST_SECONDS}).one_or_none()
    return None if row is None else msgspec.convert(row, ClaimedExport, from_attributes=True)


def beat(engine: sa.Engine, export: ClaimedExport, progress: float, rows_read: int) -> None:
    """Renew the heartbeat, and record the progress.

    Raises:
        ClaimLost: see there.
    """
    _record(engine, BEAT, export, progress=progress, rows_read=rows_read)


def finish(engine: sa.Engine, export: ClaimedExport, result: Result, hours: int) -> None:
    """List all files of the export, which are kept for some hours.

    Raises:
        ClaimLost: see there.
    """
    values = msgspec.structs.asdict(result)
    lists = {name: _encode(values[name]).decode() for name in ("sums", "files")}
    _record(engine, FINISH, export, **values | lists, hours=hours)


def release(engine: sa.Engine, export: ClaimedExport) -> None:
    """Return the export to the queue, for an attempt after a pause.

    Raises:
        ClaimLost: see there.
    """
    _record(engine, RELEASE, export, pause=RETRY_SECONDS * export.attempts)


def fail(engine: sa.Engine, export: ClaimedExport, error: str) -> None:
    """End the export without files. `error` is shown to the merchant.

    Raises:
        ClaimLost: see there.
    """
    _record(engine, FAIL, export, error=error)


def _record(engine: sa.Engine, statement: sa.TextClause, export: ClaimedExport, **values: Any) -> None:
    with engine.begin() as connection:
        if not connection.execute(statement, values | {"id": export.id, "claim": export.claim}).rowcount:
            raise ClaimLost
