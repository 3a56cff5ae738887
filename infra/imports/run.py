"""Run an import: read the file, check its rows, store chunk after chunk."""

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
from psycopg.rows import class_row

from infra.database.engine import open_connection
from infra.imports import columns, rules
from infra.imports.chunks import Chunks
from infra.imports.errors_file import ErrorsFile
from infra.imports.kinds import Kind
from infra.imports.processes import checked
from infra.imports.rows import CHUNK_ROWS, ImportFailed, Reader, check_encoding
from infra.imports.rules import Environment
from infra.imports.staging import Db

# Checking a smaller file takes less time than starting a process.
SINGLE_PROCESS_BYTES = 1024 * 1024
MAX_PROCESSES = 8


class Counts(msgspec.Struct):
    """Numbers of rows, and the path of the errors file."""

    read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    errors_file: str | None = None
    """Path of the file with the rejected rows."""


def find_environment(connection: Db, organization: str, mode: str) -> Environment:
    """Return the environment that receives the rows.

    Raises:
        ImportFailed: the organization does not exist.
    """
    row = (
        connection.cursor(row_factory=class_row(Environment))
        .execute(
            """
        SELECT e.id, o.currency, o.region FROM organizations o JOIN environments e ON e.organization_id = o.id
        WHERE o.name = %s AND e.mode = %s AND o.deleted_at IS NULL
        """,
            (organization, mode),
        )
        .fetchone()
    )
    if not row:
        raise ImportFailed(f"There is no organization {organization!r}: `consumers org create` makes one")
    return row


def run(
    connection: Db,
    path: Path,
    kind: Kind,
    environment: Environment,
    *,
    mapping: Mapping[str, str] | None = None,
    dry_run: bool = False,
    processes: int | None = None,
    chunk_rows: int = CHUNK_ROWS,
    committed: Callable[[Counts, int], None] = lambda _counts, _position: None,
) -> Counts:
    """Import a file.

    Args:
        connection: in autocommit mode; each chunk is a transaction of its own.
        path: of the CSV file; the errors file is put beside it.
        kind: consumers or orders.
        environment: the target environment.
        mapping: header → field, for headers that differ from the field's name; "" ignores the column.
        dry_run: roll each chunk back instead of committing it.
        processes: number of processes for the checks; None chooses by file size and processors.
        chunk_rows: maximum number of rows in one transaction.
        committed: called after each chunk with the counts and the number of bytes read so far.

    Raises:
        ImportFailed: the file cannot be read: encoding, header or columns.
        psycopg.Error: the database failed; chunks committed before the failure stay.
    """
    check_encoding(path)
    if processes is None:
        processes = 0 if path.stat().st_size <= SINGLE_PROCESS_BYTES else min(os.cpu_count() or 1, MAX_PROCESSES)
    counts = Counts()
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = Reader(file)
        assigned = columns.assign(reader.header, list(kind.rules.columns), mapping or {})
        if not assigned.names.intersection(kind.required):
            raise ImportFailed(f"The file needs a column {' or '.join(kind.required)}")
        chunks = Chunks(connection, kind, environment, dry_run=dry_run)
        check = partial(rules.check, kind.rules, environment, assigned)
        with (
            ErrorsFile(path, reader.header) as errors,
            closing(checked(reader.chunks(chunk_rows), check, processes)) as ready,
        ):
            for chunk, result in ready:
                outcome = chunks.store(result.rows)
                rejects = result.rejects | outcome.rejects
                for position in sorted(rejects):
                    errors.add(chunk.records[position], rejects[position])
                counts.read += len(chunk.records)
                counts.inserted += outcome.inserted
                counts.updated += outcome.updated
                counts.unchanged += outcome.unchanged
                counts.rejected += len(rejects)
                counts.errors_file = str(errors.path) if counts.rejected else None
                committed(counts, chunk.end)
    return counts


def connect(database_url: str) -> Db:
    """Open a connection without prepared statements: plans must follow the growth of the tables during the import."""
    return open_connection(database_url)
