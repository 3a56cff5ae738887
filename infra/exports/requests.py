"""Exports as rows of `exports`: request an export, find, list and delete exports. Every function runs in the caller's
transaction. `indexer/exports/` does the work.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from infra.errors import ExplainedError
from infra.exports.tables import TableName
from infra.ids import new_ids

Format = Literal["parquet", "csv"]
State = Literal["queued", "running", "done", "failed", "expired"]
MAX_KEPT = 10
"""Exports of an environment that wait, run, or have files."""
RECORD_DAYS = 365
"""Days that the row of an export is kept, as a record for audits."""

# An export has expired at its time, even if its files are deleted a little later.
COLUMNS = """
    x.id, x.environment_id, x.key_id, x.tables, x.format, x.personal, x.claim, x.progress, x.rows_read, x.as_of,
    x.members_as_of, x.xid, x.epoch::text AS epoch, x.lsn::text AS lsn, x.sums, x.error, x.requested_at,
    x.finished_at, x.expires_at,
    CASE WHEN x.state = 'done' AND x.expires_at <= clock_timestamp() THEN 'expired' ELSE x.state END AS state,
    CASE WHEN x.state = 'done' AND x.expires_at > clock_timestamp() THEN x.files ELSE '[]' END AS files"""
OF_ENVIRONMENT = f"SELECT {COLUMNS} FROM exports x WHERE x.environment_id = :environment_id"
FIND = sa.text(f"{OF_ENVIRONMENT} AND x.id = :id")
LOCK = sa.text("SELECT FROM environments WHERE id = :environment_id FOR NO KEY UPDATE")
COUNT_KEPT = sa.text("""
    SELECT count(*) FROM exports WHERE environment_id = :environment_id
        AND (state IN ('queued', 'running') OR state = 'done' AND expires_at > clock_timestamp())""")
INSERT = sa.text("""
    INSERT INTO exports (id, environment_id, key_id, tables, format, personal)
    VALUES (:id, :environment_id, :key_id, :tables, :format, :personal)""")
# The new number of the claim stops a worker. An export that is over already stays as it is, for audits.
DELETE = sa.text("""
    UPDATE exports SET state = 'expired', files = '[]', claim = claim + 1,
        finished_at = coalesce(finished_at, present()), expires_at = least(expires_at, present())
    WHERE environment_id = :environment_id AND id = :id AND state IN ('queued', 'running', 'done')""")


class ExportError(ExplainedError):
    """The export cannot be requested. The message is a single line, for the caller."""


class ExportFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A file of an export, as stored with the export and in the manifest."""

    name: str
    table: TableName | None
    """None for the files with descriptions."""
    rows: int | None
    bytes: int
    sha256: str


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """An export as it is stored."""

    id: str
    environment_id: int
    key_id: str | None
    """The key of the request; None for a command of an operator."""
    tables: list[TableName]
    format: Format
    personal: bool
    state: State
    claim: int
    """Number of the attempt whose files are listed."""
    progress: float
    rows_read: int
    """Rows copied from the database so far."""
    as_of: datetime | None
    members_as_of: datetime | None
    xid: str | None
    epoch: str | None
    lsn: str | None
    sums: dict[str, dict[str, Any]]
    files: list[ExportFile]
    error: str | None
    requested_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None

    @property
    def is_over(self) -> bool:
        return self.state not in {"queued", "running"}


def export_of(row: sa.Row[Any]) -> Export:
    """Convert a row with `COLUMNS`."""
    return msgspec.convert(row, Export, from_attributes=True)


def request(
    connection: sa.Connection,
    environment_id: int,
    *,
    tables: Sequence[TableName],
    file_format: Format,
    personal: bool,
    key_id: str | None,
) -> Export:
    """Request an export.

    Args:
        connection: in a transaction.
        environment_id: the environment to export.
        tables: of the export.
        file_format: of the files with rows.
        personal: whether to include personal data. The caller checks the scope.
        key_id: the key of the request; None for a command.

    Raises:
        ExportError: the environment has `MAX_KEPT` exports that wait, run, or have files.
    """
    export_id = new_ids("exp_", 1)[0]
    values = {"environment_id": environment_id, "id": export_id}
    connection.execute(LOCK, values)
    if connection.execute(COUNT_KEPT, values).scalar_one() >= MAX_KEPT:
        raise ExportError(
            f"An environment has at most {MAX_KEPT} exports at a time: delete one, or wait until one expires"
        )
    chosen = {"tables": list(tables), "format": file_format, "personal": personal, "key_id": key_id}
    connection.execute(INSERT, values | chosen)
    export = find(connection, environment_id, export_id)
    assert export, "inserted in this transaction"
    return export


def find(connection: sa.Connection, environment_id: int, export_id: str) -> Export | None:
    """Return an export; None if the environment has no export with this id."""
    row = connection.execute(FIND, {"environment_id": environment_id, "id": export_id}).one_or_none()
    return None if row is None else export_of(row)


def delete(connection: sa.Connection, environment_id: int, export_id: str) -> Export | None:
    """Stop an export, or delete its files; return what remains of it, or None if there is no such export.

    The row stays, as a record for audits. The files are not listed from the commit on, and the indexer deletes them
    within a minute.
    """
    connection.execute(DELETE, {"environment_id": environment_id, "id": export_id})
    return find(connection, environment_id, export_id)
