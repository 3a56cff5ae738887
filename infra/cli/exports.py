"""`consumers export`: a merchant's tables as files, for analysts."""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import sqlalchemy as sa
import typer
from rich.progress import TimeRemainingColumn

from infra.accounts.organizations import Mode, environment_id
from infra.cli.output import Json
from infra.cli.progress import ProgressDisplay
from infra.cli.transaction import database_errors_as_one_line
from infra.database.engine import open_engine
from infra.errors import ExplainedError
from infra.exports import requests
from infra.exports.manifest import MANIFEST
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
    one moment of the database. The files are then moved into DIR, which
    appears when all of them are complete. Without --personal, they hold no
    personal data. In DIR, `duckdb -init analytics.sql` opens the tables.

    --json prints manifest.json. Exit status: 0 if DIR has the files; 1 if
    the command could not start or write DIR; 2 if the export failed; 130 if
    interrupted.
    """
    settings = load()
    refuse_foreign_index(settings)
    with database_errors_as_one_line():
        store = open_store(settings)
    engine = open_engine(settings)
    try:
        with _new_folder(out) as folder:
            with database_errors_as_one_line(), engine.begin() as connection:
                requested = requests.request(
                    connection,
                    environment_id(connection, org, mode),
                    tables=[each.value for each in table or Table],
                    file_format=file_format,
                    personal=personal,
                    key_id=None,
                )
            try:
                with database_errors_as_one_line():
                    done = _wait(engine, settings, requested)
                _copy(store, done, folder)
            finally:
                _delete(engine, requested)
    except KeyboardInterrupt:
        typer.echo("interrupted: the export was deleted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        engine.dispose()
    if json:
        typer.echo(msgspec.json.format((out / MANIFEST).read_bytes(), indent=-1))
    else:
        rows = ", ".join(f"{done.sums[name]['rows']:,} {name}" for name in done.tables)
        typer.echo(f"{out}: {rows}; {sum(file.bytes for file in done.files):,} bytes")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder for the files beside `out`. It becomes `out` at the end, and is deleted after an error.

    Raises:
        OutputError: `out` is not an empty folder, or cannot be written.
    """
    out = out.absolute()
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError(f"{out} is not an empty folder: give a new folder in --out")
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{out.name}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}): give another folder in --out") from error
    try:
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _delete(engine: sa.Engine, export: Export) -> None:
    """Delete the files in the store, because an environment has a limited number of exports. The record stays."""
    # Without the database, the files are deleted when the export expires.
    with suppress(sa.exc.SQLAlchemyError), engine.begin() as connection:
        requests.delete(connection, export.environment_id, export.id)


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
            if export.state == "queued":
                began = time.monotonic()
                text = "waits for a worker of the lane bulk"
            else:
                rate = export.rows_read / (time.monotonic() - began + POLL_SECONDS)
                text = f"{export.rows_read:,} rows, {rate:,.0f} rows/s"
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


def _copy(store: ExportStore, export: Export, folder: Path) -> None:
    """Copy the files of an export into a folder.

    Raises:
        OutputError: there is too little space, the files cannot be copied, or a file differs from its sum.
    """
    needed, free = sum(file.bytes for file in export.files), shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"the files need {needed:,} bytes, and {folder.parent} has {free:,}: give a folder on another disk in --out"
        )
    try:
        for file in export.files:
            _copy_file(store, export, file, folder / file.name)
    except STORE_ERRORS as error:
        raise OutputError(f"the files could not be copied into {folder.parent}: {error}") from error


def _copy_file(store: ExportStore, export: Export, file: ExportFile, target: Path) -> None:
    store.get(export.id, export.claim, file.name, target)
    with target.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != file.sha256:
        raise OutputError(f"{file.name} differs from its SHA-256: repeat the command")
