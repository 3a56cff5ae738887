"""`consumers export`: a merchant's tables as files, for analysts."""

import hashlib
import shutil
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.progress import TimeRemainingColumn

from infra.accounts.organizations import Mode, environment_id
from infra.cli.output import Json, print_json
from infra.cli.progress import ProgressDisplay
from infra.cli.transaction import database_errors_as_one_line
from infra.database.engine import open_engine
from infra.errors import ExplainedError
from infra.exports import requests
from infra.exports.requests import Export, ExportFile, Format
from infra.exports.store import STORE_ERRORS, ExportStore, open_store
from infra.index.ownership import refuse_foreign_index
from infra.queue import EXPORT, TaskQueue
from infra.settings import Settings, load

POLL_SECONDS = 0.2
FAILED, INTERRUPTED = 2, 130

Organization = Annotated[str, typer.Option("--org", help="Name of the organization.")]
ModeOption = Annotated[Mode, typer.Option(help="Environment of the organization.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files: a new one, or an empty one.")]


class Table(StrEnum):
    consumers = "consumers"
    orders = "orders"
    audiences = "audiences"
    members = "members"


Tables = Annotated[
    list[Table] | None, typer.Option("--table", help="A table; may be repeated. By default, all tables.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="Format of the files.")]
Personal = Annotated[
    bool, typer.Option("--personal", help="Include addresses, numbers, names, external ids and metadata.")
]


class OutputError(ExplainedError):
    """The files cannot be written. The message is a single line, for the caller."""


def export(
    org: Organization,
    out: Out,
    *,
    mode: ModeOption = "live",
    table: Tables = None,
    file_format: FormatOption = "parquet",
    personal: Personal = False,
    json: Json = False,
) -> None:
    """Export consumers, orders, audiences and members into files.

    A worker makes the export, as for POST /api/v1/exports: all rows are of
    one moment of the database. The files are then copied into DIR, which
    appears when all of them are complete. Without --personal, they hold no
    personal data. In DIR, `duckdb -init analytics.sql` opens the tables.

    Exit status: 0 if DIR has the files; 1 if the command could not start; 2
    if the export failed; 130 if interrupted, then the export is deleted.
    """
    settings = load()
    refuse_foreign_index(settings)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is not an empty folder: give a new folder in --out")
    with database_errors_as_one_line():
        store = open_store(settings)
    engine = open_engine(settings)
    try:
        with database_errors_as_one_line(), engine.begin() as connection:
            environment = environment_id(connection, org, mode)
            requested = requests.request(
                connection,
                environment,
                tables=[each.value for each in table or Table],
                file_format=file_format,
                personal=personal,
                key_id=None,
            )
        try:
            with database_errors_as_one_line():
                done = _wait(engine, settings, requested)
            _copy(store, done, out)
        except KeyboardInterrupt:
            with engine.begin() as connection:
                requests.delete(connection, environment, requested.id)
            raise typer.Exit(INTERRUPTED) from None
    finally:
        engine.dispose()
    if json:
        print_json(done)
    else:
        rows = ", ".join(f"{sums['rows']:,} {name}" for name, sums in done.sums.items())
        typer.echo(f"{out}: {rows}; {sum(file.bytes for file in done.files):,} bytes")


def _wait(engine: sa.Engine, settings: Settings, export: Export) -> Export:
    """Show the progress until the export is done.

    Raises:
        Exit: the export failed, or was deleted; the reason has been printed.
    """
    task_queue = TaskQueue(settings)
    task_queue.send(EXPORT)  # a lost wake-up is repeated by beat
    task_queue.close()
    began = time.monotonic()
    with ProgressDisplay(TimeRemainingColumn(), total=1) as display:
        while not export.is_over:
            rate = export.rows_read / (time.monotonic() - began + 0.001)
            text = f"{export.state}, {export.rows_read:,} rows, {rate:,.0f} rows/s"
            display.show(text, completed=export.progress, total=1, line=f"{export.progress:.0%}: {text}")
            time.sleep(POLL_SECONDS)
            with engine.connect() as connection:
                found = requests.find(connection, export.environment_id, export.id)
            assert found, "a row is kept for a year"
            export = found
    if export.state != "done":
        typer.echo(f"export {export.id}: {export.error or 'deleted'}", err=True)
        raise typer.Exit(FAILED)
    return export


def _copy(store: ExportStore, export: Export, out: Path) -> None:
    """Copy the files into a new folder, and give it its name at the end."""
    partial = out.with_name(f"{out.name}.{export.id}.partial")
    try:
        partial.mkdir(mode=0o700, parents=True)
        for file in export.files:
            _copy_file(store, export, file, partial / file.name)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except STORE_ERRORS as error:
        raise OutputError(f"the files could not be copied into {out}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_file(store: ExportStore, export: Export, file: ExportFile, target: Path) -> None:
    store.get(export.id, export.claim, file.name, target)
    with target.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != file.sha256:
        raise OutputError(f"{file.name} differs from its SHA-256: repeat the command")
