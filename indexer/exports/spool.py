"""Temporary files with the rows of an export, as text: written while the snapshot is held, converted afterwards.

A slow conversion, a slow store or a slow client must not hold a snapshot, because a held snapshot keeps PostgreSQL from
removing dead rows. So the rows are only copied as long as the transaction runs.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import psycopg

from indexer.exports.failures import require_space
from infra.exports.tables import PHONE_COUNTRY, Column, Table, read_order, select
from infra.phone_countries import country_of

PART_ROWS = 1_000_000
"""Maximum of rows in a part, and so in a file of the export."""
CHECK_ROWS = 8_000
"""Rows between two checks of the disk and of the claim."""
VECTOR_ROWS, VECTOR_BYTES = 2048, 4 * 1024 * 1024
"""DuckDB reads so many rows of a file at once, however long they are. A file ends when so many bytes have been written
for them: 16 KiB of metadata in each row would need several times 32 MiB of memory."""
CHUNK_ROWS = 64
"""Rows written at once, unless they are long: a snapshot is held meanwhile. The three numbers of rows above are
multiples."""
BUFFER_BYTES = 1024 * 1024


class Spool(NamedTuple):
    """The temporary files of a table."""

    columns: Sequence[Column]
    """In the order of the export."""
    parts: list[list[Path]]
    """The files of each part."""
    rows: int

    @property
    def files(self) -> list[Path]:
        return [file for part in self.parts for file in part]

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    def joined(self, further: "Spool") -> "Spool":
        """Return both spools as one, without a part that is empty beside others."""
        parts = [part for part in self.parts + further.parts if part[0].stat().st_size]
        return Spool(self.columns, parts or self.parts, self.rows + further.rows)


class Writer:
    """Writes rows into parts of at most `PART_ROWS`. There is a part even without a row, for the columns."""

    def __init__(self, folder: Path, name: str, advance: Callable[[int], None]) -> None:
        """Begin the first part.

        Args:
            folder: of the spool.
            name: of the table, part of the names.
            advance: receives the number of rows every `CHECK_ROWS` rows; may raise.
        """
        self._folder, self._name, self._advance = folder, name, advance
        self.parts: list[list[Path]] = [[]]
        self.rows = 0
        self._vector_rows = self._vector_bytes = 0
        self._file = self._begin_file()

    def write_all(self, rows: Iterator[bytes]) -> None:
        """Write rows, each of them a line of CSV, and close the last part."""
        try:
            while chunk := list(islice(rows, CHUNK_ROWS)):
                if self.rows and not self.rows % CHECK_ROWS:
                    require_space(self._folder)
                    self._advance(CHECK_ROWS)
                    if not self.rows % PART_ROWS:
                        self.parts.append([])
                        self._change_file()
                joined = b"".join(chunk)
                # Row by row in a file that began within a chunk, so that vectors end where DuckDB's do.
                if len(joined) * VECTOR_ROWS <= VECTOR_BYTES * CHUNK_ROWS and not self._vector_rows % CHUNK_ROWS:
                    self._write(joined, len(chunk))
                else:
                    for row in chunk:
                        self._write(row, 1)
        finally:
            self._file.close()
        self._advance(self.rows % CHECK_ROWS)

    def _write(self, content: bytes, rows: int) -> None:
        if self._vector_bytes >= VECTOR_BYTES:
            self._change_file()
        self._file.write(content)
        self.rows += rows
        self._vector_rows += rows
        self._vector_bytes += len(content)
        if self._vector_rows == VECTOR_ROWS:
            self._vector_rows = self._vector_bytes = 0

    def _change_file(self) -> None:
        self._file.close()
        self._file = self._begin_file()

    def _begin_file(self) -> BinaryIO:
        self._vector_rows = self._vector_bytes = 0
        part = self.parts[-1]
        file = self._folder / f"{self._name}-{len(self.parts):04}-{len(part) + 1:05}.spool"
        part.append(file)
        return file.open("wb", buffering=BUFFER_BYTES)


def copy_table(
    connection: psycopg.Connection[Any],
    table: Table,
    columns: Sequence[Column],
    environment_id: int,
    write: Callable[[Iterator[bytes]], None],
) -> None:
    """Copy the rows of a table in the transaction of the connection."""
    query = f"COPY ({select(table, columns, environment_id)}) TO STDOUT (FORMAT csv)"
    has_phone = read_order(columns)[0] is PHONE_COUNTRY
    with connection.cursor() as cursor, cursor.copy(query.encode()) as copy:
        # PostgreSQL sends a message for each row.
        rows = map(bytes, copy)
        write(map(_with_country, rows) if has_phone else rows)


def _with_country(row: bytes) -> bytes:
    """Replace the phone number at the begin of a row by its country. Neither needs quotes."""
    phone, _, rest = row.partition(b",")
    return (country_of(phone.decode()) or "").encode() + b"," + rest if phone else row
