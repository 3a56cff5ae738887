"""Run an import: read the file, check its rows, store chunk after chunk."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path

import msgspec
from psycopg.rows import class_row

from infra.database.engine import open_connection
from infra.imports import rules, sorting, sources
from infra.imports.chunks import Chunks
from infra.imports.columns import Columns
from infra.imports.errors_file import ErrorsFile
from infra.imports.exported import Environment
from infra.imports.formats import AS_SHOWN, Format, assign_columns
from infra.imports.kinds import ORDERS, Kind
from infra.imports.processes import checked
from infra.imports.rows import CHUNK_ROWS, Chunk, Reader, Record
from infra.imports.rules import Checked, Row
from infra.imports.sources import ImportFailed, Source
from infra.imports.staging import Db, Outcome
from infra.imports.survey import Survey, survey, survey_notation

# Checking a smaller file takes less time than starting a process.
SINGLE_PROCESS_BYTES = 4 * 1024 * 1024
# A smaller file has few chunks, whatever the order of its rows.
SORTED_BYTES = 1024 * 1024
MAX_PROCESSES = 8


class Counts(msgspec.Struct):
    """Numbers of rows, and how the file was read."""

    read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    errors_file: str | None = None
    """Path of the file with the rejected rows."""
    continued: int = 0
    """Further rows of a record, such as further items of an order; not counted in `read`."""
    export: str | None = None
    """The file was read as this export of another system."""
    ignored: list[str] = msgspec.field(default_factory=list)
    """Headers of the export without a place in the mapping."""
    decimal_ids: list[str] = msgspec.field(default_factory=list)
    """Fields in which 12345.0 was read as the id 12345."""
    unread_lines: int = 0
    """Lines after a quote that never closes."""
    unread: str | None = None
    """Why the lines were not read."""


def find_environment(connection: Db, organization: str, mode: str) -> Environment:
    """Return the environment that receives the rows.

    Raises:
        ImportFailed: the organization does not exist.
    """
    row = (
        connection.cursor(row_factory=class_row(Environment))
        .execute(
            """
        SELECT e.id, o.currency, o.region, e.mode FROM organizations o JOIN environments e ON e.organization_id = o.id
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
    form: Format = AS_SHOWN,
    dry_run: bool = False,
    processes: int | None = None,
    chunk_rows: int = CHUNK_ROWS,
    committed: Callable[[Counts, float], None] = lambda _counts, _share: None,
) -> Counts:
    """Import a file.

    Args:
        connection: in autocommit mode; each chunk is a transaction of its own.
        path: of the CSV file; the errors file is put beside it, or into the working directory for a pipe.
        kind: consumers or orders.
        environment: the target environment.
        form: how to read the file.
        dry_run: roll each chunk back instead of committing it.
        processes: number of processes for the checks; None chooses by file size and processors.
        chunk_rows: maximum number of rows in one transaction.
        committed: called after each chunk with the counts and the share of the file read so far.

    Raises:
        ImportFailed: the file cannot be read: encoding, header or columns.
        psycopg.Error: the database failed; chunks committed before the failure stay.
    """
    with sources.opened(path, form.encoding) as source:
        assigned, contradictory = _survey(source, kind, form)
        if processes is None:
            # An order with our own names is checked in less time than it takes to send it to another process.
            is_short = source.size <= SINGLE_PROCESS_BYTES or (kind == ORDERS and not assigned.export)
            processes = 0 if is_short else min(os.cpu_count() or 1, MAX_PROCESSES)
        counts = Counts(
            export=assigned.export.name if assigned.export else None,
            ignored=list(assigned.ignored),
            decimal_ids=sorted(assigned.decimal_ids),
        )
        with source.text() as text:
            reader = Reader(text, form.delimiter)
            errors_path = sources.errors_path(path, kind.name)
            check = partial(rules.check, kind.rules, environment, assigned)
            with (
                ErrorsFile(errors_path, reader.header, delimiter=reader.delimiter, encoding=source.encoding) as errors,
                _chunks(reader, source, kind, assigned, chunk_rows) as chunks,
                closing(checked(chunks, check, processes)) as ready,
            ):
                storing = _Storing(Chunks(connection, kind, environment, dry_run=dry_run), errors, counts)
                for chunk, result in ready:
                    storing.store(chunk, _without(result, chunk.records, contradictory))
                    committed(counts, chunk.end / max(source.size, 1))
                storing.settle()
            if reader.unread:
                counts.unread_lines, counts.unread = reader.unread.lines, str(reader.unread)
    return counts


class _Storing:
    """Store chunks; count the rows, and write the rejected rows to the errors file."""

    def __init__(self, chunks: Chunks, errors: ErrorsFile, counts: Counts) -> None:
        self._chunks = chunks
        self._errors = errors
        self._counts = counts
        self._deferred: list[tuple[Record, Row]] = []

    def store(self, chunk: Chunk, result: Checked) -> None:
        outcome = self._chunks.store(result.rows)
        outcome.rejects |= result.rejects
        if outcome.deferred:
            self._deferred += [(chunk.records[row[0]], row) for row in result.rows if row[0] in outcome.deferred]
        self._counts.read += len(chunk.records)
        self._counts.continued += sum(len(record.continued) for record in chunk.records)
        self._add(chunk.records, outcome)

    def settle(self) -> None:
        """Store the deferred rows, after the last chunk."""
        rows = [(position, *row[1:]) for position, (_, row) in enumerate(self._deferred)]
        self._add([record for record, _ in self._deferred], self._chunks.settle(rows))

    def _add(self, records: list[Record], outcome: Outcome) -> None:
        for position in sorted(outcome.rejects):
            self._errors.add(records[position], outcome.rejects[position])
        counts = self._counts
        counts.inserted += outcome.inserted
        counts.updated += outcome.updated
        counts.unchanged += outcome.unchanged
        counts.rejected += len(outcome.rejects)
        counts.errors_file = str(self._errors.path) if counts.rejected else None


def _survey(source: Source, kind: Kind, form: Format) -> Survey:
    """Return the columns of the file, and the reason for each line that contradicts other lines.

    The keys of all rows are collected only where rows can contradict each other, because that takes longer.
    """
    with source.text() as text:
        reader = Reader(text, form.delimiter)
        assigned = assign_columns(reader.header, kind, form)
        if not assigned.names.intersection(kind.required):
            raise ImportFailed(f"The file needs a column {' or '.join(kind.required)}")
        has_people = kind.has_people and assigned.names.issuperset({"externalId", "email"})
        if not has_people and not assigned.continued_by:
            surveyed = survey_notation(reader.records(), assigned)
            if not surveyed.decimal_ids:
                return Survey(surveyed, {})
    with source.text() as text:
        records = Reader(text, form.delimiter).records(assigned.continued_by)
        return survey(records, assigned, has_people=has_people)


def _chunks(
    reader: Reader, source: Source, kind: Kind, columns: Columns, rows: int
) -> AbstractContextManager[Iterator[Chunk]]:
    """Read the chunks of a file. Orders of a large file are sorted by consumer."""
    column = sorting.reference(columns) if kind == ORDERS and source.size > SORTED_BYTES else None
    if column is None:
        return nullcontext(reader.chunks(rows, continued_by=columns.continued_by))
    records = reader.records(columns.continued_by)
    return sorting.sorted_chunks(records, columns, column, rows, source.size)


def _without(result: Checked, records: list[Record], contradictory: Mapping[int, str]) -> Checked:
    """Reject the rows that contradict other rows."""
    if not contradictory:
        return result
    conflicting = {
        position: reason
        for position, record in enumerate(records)
        if (reason := contradictory.get(record.line)) is not None
    }
    rejects = {
        position: "; ".join(filter(None, (result.rejects.get(position), conflicting.get(position))))
        for position in result.rejects.keys() | conflicting.keys()
    }
    return Checked([row for row in result.rows if row[0] not in conflicting], rejects)


def connect(database_url: str) -> Db:
    """Open a connection without prepared statements: plans must follow the growth of the tables during the import."""
    return open_connection(database_url)
