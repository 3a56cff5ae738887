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
from infra.index.ownership import ForeignIndexError, refuse_foreign_index

REJECTED, FAILED, INTERRUPTED = 1, 2, 130

app = typer.Typer(no_args_is_help=True)


class Mode(StrEnum):
    live = "live"
    test = "test"


File = Annotated[Path, typer.Argument(help="Path of the CSV file.", exists=True, dir_okay=False, readable=True)]
Organization = Annotated[str, typer.Option("--org", help="Name of the organization.")]
ModeOption = Annotated[Mode, typer.Option(help="Environment of the organization.")]
Column = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HEADER=FIELD",
        help="Import the column HEADER as FIELD; HEADER= ignores the column. Needed for each column whose header is "
        "not the name of a field. May be repeated.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check every row, against the database too, write the errors file, and store nothing. A row is checked "
        "against the stored data and the rows of its own chunk, not against earlier chunks.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the counts as one line of JSON.")]


@app.callback()
def import_() -> None:
    """Import a CSV file. The file is UTF-8; the first line names the columns.

    Rows are stored in chunks of 5,000. Running the same command again after
    an interruption completes the import and stores nothing twice. An empty
    cell or a missing column leaves the stored value unchanged.

    Rejected rows are written to FILE.errors.csv with their line number and
    the reasons; all remaining rows are stored. Correct the rejected rows and
    import FILE.errors.csv in the same way. Progress is shown on standard error, the counts are
    printed at the end.

    Exit status: 0 if every row was stored; 1 if some rows were rejected; 2
    if the import could not start or continue; 130 if interrupted.
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

    Every row needs an externalId or an email. A row updates the consumer
    with the same externalId; else the consumer with the same email, unless
    with another externalId; else the row creates a consumer. Metadata is
    merged key by key.
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
    """Import orders: externalId, the consumer, amount, and optional fields.

    The consumer, named by consumerId, consumerExternalId or consumerEmail,
    must exist. Optional fields, with the defaults of the API, are
    status, refundedAmount, currencyCode, baseAmount (the amount in the
    organization's currency, if the order has another), placedAt (RFC 3339 or
    a date) and metadata.KEY.

    A row updates the order with the same externalId, or creates an order.
    Every row needs an externalId: otherwise a second import would create the
    order again. The consumer of an order never changes.
    """
    _import(kinds.ORDERS, file, org, mode, column, dry_run=dry_run, json=json)


def _import(
    kind: kinds.Kind, file: Path, org: str, mode: Mode, column: list[str] | None, *, dry_run: bool, json: bool
) -> None:
    progress = ImportProgress(file.stat().st_size)
    counts = Counts()

    def committed(current: Counts, position: int) -> None:
        nonlocal counts
        counts = current
        progress.show_rows(current.read, current.rejected, position)

    try:
        configured = settings.load()
        refuse_foreign_index(configured)
        with closing(connect(configured.session_url)) as connection, progress:
            run(
                connection,
                file,
                kind,
                find_environment(connection, org, mode),
                mapping=parse_mapping(column or []),
                dry_run=dry_run,
                committed=committed,
            )
    except (ImportFailed, ForeignIndexError, settings.SettingsError, OSError) as error:
        _stop(str(error), FAILED)
    except psycopg.Error as error:
        _stop(f"The database failed: {str(error).splitlines()[0]}. {_resume_hint(counts)}", FAILED)
    except KeyboardInterrupt:
        _stop(f"Interrupted. {_resume_hint(counts)}", INTERRUPTED)
    typer.echo(msgspec.json.encode(counts).decode() if json else _summary(counts, progress, dry_run=dry_run))
    raise typer.Exit(REJECTED if counts.rejected else 0)


def _summary(counts: Counts, progress: ImportProgress, *, dry_run: bool) -> str:
    text = (
        f"{'Dry run, nothing stored: ' if dry_run else ''}{counts.read:,} rows read: {counts.inserted:,} inserted, "
        f"{counts.updated:,} updated, {counts.unchanged:,} unchanged, {counts.rejected:,} rejected "
        f"({progress.seconds():.1f} s, {progress.rate(counts.read):,.0f} rows/s)"
    )
    return f"{text}\nRejected rows with their reasons: {counts.errors_file}" if counts.rejected else text


def _resume_hint(counts: Counts) -> str:
    return f"{counts.read:,} rows are done; run the same command again to continue"


def _stop(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201 (a command's output)
    raise typer.Exit(status)
