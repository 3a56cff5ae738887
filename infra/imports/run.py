"""An import from the file to the last commit."""

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
import psycopg

from infra.database.engine import CONNECT
from infra.imports import columns, rules
from infra.imports.chunks import Chunks
from infra.imports.errors_file import ErrorsFile
from infra.imports.kinds import Kind
from infra.imports.processes import checked
from infra.imports.rows import CHUNK_ROWS, ImportFailed, Reader, check_encoding
from infra.imports.rules import Environment
from infra.imports.staging import Db

# Smaller files are checked before a process would have started.
ALONE_BYTES = 1024 * 1024
MOST_PROCESSES = 8


class Counts(msgspec.Struct):
    """Rows, but for the path."""

    read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    errors_file: str | None = None
    """Where the rejected rows are."""


def find_environment(connection: Db, organization: str, mode: str) -> Environment:
    """The environment to import to.

    Raises:
        ImportFailed: there is no such organization.
    """
    row = connection.execute(
        """
        SELECT e.id, o.currency, o.region FROM organizations o JOIN environments e ON e.organization_id = o.id
        WHERE o.name = %s AND e.mode = %s
        """,
        (organization, mode),
    ).fetchone()
    if not row:
        raise ImportFailed(f"There is no organization {organization!r}: `consumers org create` makes one")
    return Environment(*row)


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
        kind: what its rows are.
        environment: where they go.
        mapping: headers that are not the fields' names → field; "" ignores the column.
        dry_run: roll each chunk back instead of committing it.
        processes: that check rows; None: as many as suit the file and the machine.
        chunk_rows: the most rows of one transaction.
        committed: called after each chunk, with the counts and the bytes read so far.

    Raises:
        ImportFailed: nothing can be read from the file as it is.
        psycopg.Error: the database failed; chunks committed before that stay.
    """
    check_encoding(path)
    if processes is None:
        processes = 0 if path.stat().st_size <= ALONE_BYTES else min(os.cpu_count() or 1, MOST_PROCESSES)
    counts = Counts()
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = Reader(file)
        assigned = columns.assign(reader.header, list(kind.fields), mapping or {})
        if not assigned.names.intersection(kind.required):
            raise ImportFailed(f"The file needs a column {' or '.join(kind.required)}")
        chunks = Chunks(connection, kind, environment, dry_run=dry_run)
        check = partial(rules.check, kind.rules, environment, assigned)
        with (
            ErrorsFile(path, reader.header) as errors,
            closing(checked(reader.chunks(chunk_rows), check, processes)) as ready,
        ):
            for chunk, found in ready:
                outcome = chunks.store(found.rows)
                rejects = found.rejects | outcome.rejects
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
    """A connection whose statements are planned each time: the tables grow while it imports."""
    return psycopg.connect(database_url, autocommit=True, prepare_threshold=None, **CONNECT)  # type: ignore[arg-type] # libpq's, of two types
