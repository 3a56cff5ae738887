"""Read all rows of an export in a single snapshot of PostgreSQL.

1. A read-only transaction takes the snapshot. The time of the snapshot is the arrival of the first statement, so the
   snapshot has every change committed by then.
2. A second transaction gets a number after the snapshot was taken. The numbers of all transactions in the snapshot are
   lower, so a read with the consistency token of the second transaction finds every change of the export.
3. The rows are counted, summed and copied, and the transaction ends.
"""

from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
import sqlalchemy as sa
from psycopg.rows import namedtuple_row

from indexer.exports.claims import ClaimedExport
from indexer.exports.spool import Spool, Writer, copy_table
from infra.database.engine import open_connection
from infra.exports.attributes import Attribute
from infra.exports.tables import ALL, CONSUMERS, TableName, columns_of
from infra.settings import Settings

MAX_SECONDS = 600
"""Longest time of a snapshot, also of a frozen worker."""
# The aggregation of the first orders needs more than the usual memory for its hash table.
LIMITS = f"SET LOCAL transaction_timeout = '{MAX_SECONDS}s'; SET LOCAL work_mem = '64MB'"
BEGIN = """
    SELECT date_trunc('milliseconds', statement_timestamp()) AS as_of, o.name || ':' || e.mode AS environment,
        o.currency, o.region, o.attributes
    FROM environments e JOIN organizations o ON o.id = e.organization_id WHERE e.id = %s"""
# The message puts a record of the transaction into the WAL, as in transactions of requests (`api/transactions.py`).
MARK = sa.text("""
    SELECT pg_current_xact_id()::text AS xid, (current_epoch(CAST(NULL AS uuid))).id::text AS epoch,
        pg_logical_emit_message(true, 'consumers', '')::text AS lsn""")
DYNAMIC = """
    SELECT id, rules::text AS rules FROM audiences
    WHERE environment_id = %s AND type = 'DYNAMIC' AND deleted_at IS NULL ORDER BY id"""
SUMS: dict[TableName, str] = {
    "consumers": """
        SELECT count(*) AS rows, coalesce(sum(total_orders), 0) AS "totalOrders",
            trim_scale(coalesce(sum(total_order_value), 0))::text AS "totalOrderValue"
        FROM consumers WHERE environment_id = %s""",
    "orders": """
        SELECT count(*) AS rows, count(*) FILTER (WHERE counts) AS counting,
               trim_scale(coalesce(sum(value), 0))::text AS value
        FROM orders WHERE environment_id = %s""",
    "audiences": "SELECT count(*) AS rows FROM audiences WHERE environment_id = %s AND deleted_at IS NULL",
}
CONSUMER_IDS = CONSUMERS._replace(
    columns=CONSUMERS.columns[:1], source="FROM consumers c WHERE c.environment_id = {environment} ORDER BY c.id"
)
"""The ids alone, to keep only members in the snapshot."""


class Organization(NamedTuple):
    """The organization of an export, in the snapshot."""

    environment: str
    """Organization and mode, such as `shop:live`."""
    currency: str
    region: str | None
    attributes: list[Attribute]


class Mark(NamedTuple):
    """A transaction with a number from after the snapshot."""

    xid: str
    epoch: str
    lsn: str


class DynamicAudience(NamedTuple):
    """A dynamic audience, in the snapshot."""

    id: str
    rules: str
    """As JSON text."""


class Snapshot(NamedTuple):
    """The rows of an export, in temporary files."""

    as_of: datetime
    organization: Organization
    mark: Mark
    sums: dict[str, dict[str, Any]]
    """Numbers of rows and sums by table, from PostgreSQL."""
    spools: dict[str, Spool]
    """By table; `ids` has the ids of the consumers, if dynamic audiences need them."""
    dynamic: list[DynamicAudience]


def take(
    settings: Settings, engine: sa.Engine, export: ClaimedExport, folder: Path, progress: Callable[[float, int], None]
) -> Snapshot:
    """Take a snapshot, and copy the rows of the export into the folder.

    Args:
        settings: with the address of the database.
        engine: for the second transaction.
        export: to make.
        folder: of the spool; empty.
        progress: receives the share of copied rows, and their number; may raise.

    Raises:
        psycopg.Error, DBAPIError: the database is unavailable.
        ExportFailed: the disk is full.
    """
    with closing(open_connection(settings.session_url)) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with connection.transaction():
            connection.execute(LIMITS.encode())
            row: Any = (
                connection.cursor(row_factory=namedtuple_row)
                .execute(BEGIN.encode(), [export.environment_id])
                .fetchone()
            )
            attributes = msgspec.convert(row.attributes, list[Attribute])
            organization = Organization(row.environment, row.currency, row.region, attributes)
            with engine.begin() as second:
                mark = Mark(*second.execute(MARK).one())
            return _read(connection, export, folder, progress, row.as_of, organization, mark)


def _read(
    connection: psycopg.Connection[Any],
    export: ClaimedExport,
    folder: Path,
    progress: Callable[[float, int], None],
    as_of: datetime,
    organization: Organization,
    mark: Mark,
) -> Snapshot:
    sums: dict[str, dict[str, Any]] = {
        name: _row(connection, SUMS[name], export) for name in export.tables if name in SUMS
    }
    total = max(1, sum(each["rows"] for each in sums.values()))
    copied = 0

    def advance(rows: int) -> None:
        nonlocal copied
        copied += rows
        progress(min(1.0, copied / total), copied)

    spools: dict[str, Spool] = {}

    def copy(name: str, table: Any) -> None:
        columns = columns_of(table, organization.attributes if name != "ids" else [], personal=export.personal)
        writer = Writer(folder, name, advance)
        copy_table(connection, table, columns, export.environment_id, writer.write_all)
        spools[name] = Spool(columns, writer.parts, writer.rows)

    for name in export.tables:
        copy(name, ALL[name])
    dynamic: list[DynamicAudience] = []
    if "members" in export.tables:
        rows = connection.execute(DYNAMIC.encode(), [export.environment_id]).fetchall()
        dynamic = [DynamicAudience(*each) for each in rows]
        if dynamic and "consumers" not in spools:
            copy("ids", CONSUMER_IDS)
    return Snapshot(as_of, organization, mark, sums, spools, dynamic)


def _row(connection: psycopg.Connection[Any], query: str, export: ClaimedExport) -> dict[str, Any]:
    cursor = connection.execute(query.encode(), [export.environment_id])
    assert cursor.description
    names = [column.name for column in cursor.description]
    values = cursor.fetchone()
    assert values
    return dict(zip(names, values, strict=True))
