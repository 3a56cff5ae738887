"""Convert temporary files to the files of an export: typed Parquet (zstd), or CSV, by DuckDB.

DuckDB reads and writes a part at a time with little memory, and needs no connection to any server. Every written file
is read again: the numbers of rows and the sums must be those of PostgreSQL.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from indexer.exports.spool import Spool
from infra.exports.analytics import literal, quoted, read, struct
from infra.exports.requests import ExportFile, Format
from infra.exports.tables import MIN_DOMAIN_CONSUMERS, SHOWN_DOMAINS, Column, TableName, read_order

MEMORY = "160MB"
BUFFER = f", buffer_size = {4 * 1024 * 1024}"
"""The buffers of a CSV file: by default, 32 MB each."""
ROW_GROUP_ROWS, ROW_GROUP_BYTES = 122_880, "8MB"
"""Maximum of rows and of bytes of a row group."""
WRITE = {
    "parquet": f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS}, ROW_GROUP_SIZE_BYTES "
    f"'{ROW_GROUP_BYTES}'",
    "csv": "FORMAT csv, HEADER true, TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%S.%gZ'",
}
SUMS = {
    "consumers": {"totalOrders": "sum(total_orders)", "totalOrderValue": "sum(total_order_value)"},
    "orders": {"counting": "count(*) FILTER (WHERE counts)", "value": "sum(value)"},
}
"""The sums of a table's files, named as those from PostgreSQL (`snapshot.py`)."""


class Differs(Exception):  # noqa: N818 (names what was found)
    """The files do not have the rows or the sums of the database."""


class Converter:
    """Converts the temporary files of an export. Close the converter at the end."""

    def __init__(self, folder: Path, file_format: Format, *, personal: bool) -> None:
        """Open DuckDB.

        Args:
            folder: for its temporary files, and for the files of the export.
            file_format: of the files.
            personal: whether domains of few consumers are shown.
        """
        self._folder, self._format, self._personal = folder, file_format, personal
        self._database = duckdb.connect(
            config={
                "memory_limit": MEMORY,
                "threads": 1,
                "temp_directory": str(folder / "duckdb"),
                # Row groups are limited in bytes only so; a single thread keeps the order all the same.
                "preserve_insertion_order": "false",
                "autoinstall_known_extensions": "false",
            }
        )
        self._database.execute("SET TimeZone = 'UTC'")

    def close(self) -> None:
        self._database.close()

    def convert(self, name: TableName, spool: Spool, progress: Callable[[], None]) -> list[Path]:
        """Convert a table; return its files. Call `progress` after each file."""
        if name == "consumers" and not self._personal:
            self._find_shown_domains(spool)
        expressions = ", ".join(
            f"{(column.typed or '{0}').format(quoted(column.name))} AS {quoted(column.name)}"
            for column in spool.columns
        )
        files = []
        for number, part in enumerate(spool.parts, 1):
            file = self._folder / f"{name}-{number:04}.{self._format}"
            rows = f"SELECT {expressions} FROM {_spooled(part, spool.columns)}"
            self._database.execute(f"COPY ({rows}) TO {literal(str(file))} ({WRITE[self._format]})")
            files.append(file)
            progress()
        return files

    def keep_members(self, dynamic: Spool, consumers: Spool) -> Spool:
        """Return a spool with the members that are consumers of the snapshot."""
        ids = f"SELECT id FROM {_spooled(consumers.files, consumers.columns)}"
        parts, kept = list[list[Path]](), 0
        for part in dynamic.parts:
            target = part[0].with_name(f"kept-{part[0].name}")
            rows = f"SELECT * FROM {_spooled(part, dynamic.columns)} WHERE consumer_id IN ({ids})"
            copied = self._database.execute(f"COPY ({rows}) TO {literal(str(target))} (FORMAT csv, HEADER false)")
            kept += copied.fetchall()[0][0]
            parts.append([target])
        return Spool(dynamic.columns, parts, kept)

    def check(
        self, name: TableName, columns: Sequence[Column], files: Sequence[Path], sums: Mapping[str, Any]
    ) -> list[int]:
        """Read the files of a table, and compare rows and sums with those of the database.

        Returns:
            The number of rows of each file.

        Raises:
            Differs: see there.
        """
        chosen = SUMS.get(name, {})
        expressions = ", ".join(["count(*)", *(f"coalesce({each}, 0)" for each in chosen.values())])
        rows = [
            self._database.execute(
                f"SELECT {expressions} FROM {read(self._format, literal(str(file)), columns, BUFFER)}"
            ).fetchone()
            or ()
            for file in files
        ]
        found = dict(zip(["rows", *chosen], map(sum, zip(*rows, strict=True)), strict=True))
        if differing := [each for each in found if Decimal(found[each]) != Decimal(sums[each])]:
            raise Differs(f"{name}: {', '.join(differing)}")
        return [row[0] for row in rows]

    def _find_shown_domains(self, spool: Spool) -> None:
        self._database.execute(f"""
            CREATE OR REPLACE TEMP TABLE {SHOWN_DOMAINS} AS
            SELECT email_domain AS domain FROM {_spooled(spool.files, spool.columns)}
            WHERE email_domain IS NOT NULL GROUP BY 1 HAVING count(*) >= {MIN_DOMAIN_CONSUMERS}""")


def _spooled(files: Sequence[Path], columns: Sequence[Column]) -> str:
    """Return the SQL expression for the rows of files of a spool. The text `""` is empty, and no text is null."""
    paths = "[" + ", ".join(literal(str(file)) for file in files) + "]"
    return (
        f"read_csv({paths}, auto_detect = false, header = false, delim = ',', quote = '\"', escape = '\"', "
        f"nullstr = '', allow_quoted_nulls = false, parallel = false{BUFFER}, "
        f"columns = {struct(read_order(columns), typed=False)})"
    )


def described(file: Path, table: TableName | None, rows: int | None) -> ExportFile:
    """Return the entry of a file in the list of an export."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return ExportFile(name=file.name, table=table, rows=rows, bytes=file.stat().st_size, sha256=digest)
