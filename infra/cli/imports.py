"""`consumers import consumers FILE.csv` and `consumers import orders FILE.csv`."""

import sys
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import psycopg
import typer

from infra import settings
from infra.cli.progress import ImportProgress
from infra.imports import kinds
from infra.imports.columns import parse_mapping
from infra.imports.rows import ImportFailed
from infra.imports.run import Counts, connect, find_environment, run
from infra.queue import TaskQueue

REJECTED, FAILED, INTERRUPTED = 1, 2, 130

app = typer.Typer(no_args_is_help=True)


class Mode(StrEnum):
    live = "live"
    test = "test"


File = Annotated[Path, typer.Argument(help="The CSV file.", exists=True, dir_okay=False, readable=True)]
Organization = Annotated[str, typer.Option("--org", help="The organization's name.")]
ModeOption = Annotated[Mode, typer.Option(help="Which of its environments.")]
Column = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HEADER=FIELD",
        help="A column whose header is not a field's name; HEADER= ignores it. May be repeated.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check everything, against the database too, and store nothing; the errors file is written. Rows are "
        "judged by what is stored now, and by the few thousand before them.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")]


@app.callback()
def import_() -> None:
    """Import a CSV file (UTF-8; its first line names the columns).

    Rows go in 5,000 at a time. Running it again after any interruption
    completes it, and changes nothing twice. An empty cell, like a missing
    column, says nothing: what is stored stays.

    Rows that cannot go in are written to FILE.errors.csv with line and
    reasons, the others go in. That file can be mended and imported as it is.

    Exit status: 0 every row is in; 1 some were rejected; 2 it could not
    start or go on; 130 interrupted.
    """


@app.command()
def consumers(
    file: File,
    org: Organization,
    mode: ModeOption = Mode.live,
    column: Column = None,
    dry_run: DryRun = False,  # noqa: FBT002 (a flag)
    json: Json = False,  # noqa: FBT002 (a flag)
) -> None:
    """Import consumers: externalId, fullName, email, phone and metadata.KEY.

    A row is the consumer with its externalId, else the one with its email
    that has no other externalId, else a new one. Every row needs one of the
    two. Metadata is merged key by key.
    """
    _import(kinds.CONSUMERS, file, org, mode, column, dry_run=dry_run, json=json)


@app.command()
def orders(
    file: File,
    org: Organization,
    mode: ModeOption = Mode.live,
    column: Column = None,
    dry_run: DryRun = False,  # noqa: FBT002 (a flag)
    json: Json = False,  # noqa: FBT002 (a flag)
) -> None:
    """Import orders: externalId, the consumer, amount, and what else is known.

    The consumer, which must exist, by one of consumerId, consumerExternalId
    and consumerEmail. Then status, amount, refundedAmount, currencyCode,
    baseAmount (amount in the organization's currency, where that is another),
    placedAt (RFC 3339, or a date) and metadata.KEY, with the API's defaults.

    A row is the order with its externalId, else a new one. Every row needs an
    externalId, since without it importing again would double the order. An
    order keeps its consumer.
    """
    _import(kinds.ORDERS, file, org, mode, column, dry_run=dry_run, json=json)


def _import(
    kind: kinds.Kind, file: Path, org: str, mode: Mode, column: list[str] | None, *, dry_run: bool, json: bool
) -> None:
    progress = ImportProgress(file.stat().st_size)
    counts = Counts()

    def committed(now: Counts, position: int) -> None:
        nonlocal counts
        counts = now
        task_queue.wake_drain()
        progress.show_rows(now.read, now.rejected, position)

    try:
        configured = settings.load()
        with (
            closing(TaskQueue(configured)) as task_queue,
            closing(connect(configured.database_url)) as connection,
            progress,
        ):
            run(
                connection,
                file,
                kind,
                find_environment(connection, org, mode),
                mapping=parse_mapping(column or []),
                dry_run=dry_run,
                committed=committed,
            )
    except (ImportFailed, settings.SettingsError, OSError) as error:
        _stop(str(error), FAILED)
    except psycopg.Error as error:
        _stop(f"The database failed: {str(error).splitlines()[0]}. {_stands(counts)}", FAILED)
    except KeyboardInterrupt:
        _stop(f"Interrupted. {_stands(counts)}", INTERRUPTED)
    typer.echo(msgspec.json.encode(counts).decode() if json else _summary(counts, progress, dry_run=dry_run))
    raise typer.Exit(REJECTED if counts.rejected else 0)


def _summary(counts: Counts, progress: ImportProgress, *, dry_run: bool) -> str:
    text = (
        f"{'Dry run, nothing stored: ' if dry_run else ''}{counts.read:,} rows read: {counts.inserted:,} inserted, "
        f"{counts.updated:,} updated, {counts.unchanged:,} unchanged, {counts.rejected:,} rejected "
        f"({progress.seconds():.1f} s, {progress.rate(counts.read):,.0f} rows/s)"
    )
    return f"{text}\nThe rejected rows, each with its reasons: {counts.errors_file}" if counts.rejected else text


def _stands(counts: Counts) -> str:
    return f"{counts.read:,} rows are done; the same command goes on from there"


def _stop(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201 (a command's output)
    raise typer.Exit(status)
