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
from infra.imports.exports import System
from infra.imports.formats import Format
from infra.imports.run import Counts, connect, find_environment, run
from infra.imports.sources import ImportFailed
from infra.index.ownership import ForeignIndexError, refuse_foreign_index

REJECTED, FAILED, INTERRUPTED = 1, 2, 130

app = typer.Typer(no_args_is_help=True)


class Mode(StrEnum):
    live = "live"
    test = "test"


DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
DECIMALS = {"point": ".", ".": ".", "comma": ",", ",": ","}
STDIN = Path("/dev/stdin")

File = Annotated[
    Path,
    typer.Argument(
        help="Path of the CSV file, or of a pipe; - is standard input.",
        exists=True,
        dir_okay=False,
        readable=True,
        allow_dash=True,
    ),
]
Organization = Annotated[str, typer.Option("--org", help="Name of the organization.")]
ModeOption = Annotated[Mode, typer.Option(help="Environment of the organization.")]
From = Annotated[
    System | None,
    typer.Option("--from", help="System that exported the file. By default, its export is recognized by the header."),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HEADER=FIELD",
        help="Import the column HEADER as FIELD. HEADER= ignores the column. FIELD=HEADER+HEADER joins columns by a "
        "space, FIELD=HEADER|HEADER takes the first cell that is not empty. May be repeated.",
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="A character, or tab. By default, the most frequent of , ; tab and | in the first line."),
]
Encoding = Annotated[
    str | None, typer.Option(help="Encoding of the file, such as utf-16 or windows-1252. The default is UTF-8.")
]
Timezone = Annotated[
    str | None,
    typer.Option(help="Time zone of times without an offset, such as Europe/London. Without it, they are rejected."),
]
Decimal = Annotated[
    str | None,
    typer.Option(
        help="Decimal separator of amounts: point or comma. By default, the one of the file's other amounts in an "
        "export of another system, and the point in your own file."
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
    """Import a CSV file: your own, or an export of another system.

    The first line names the columns. Known are the names of the fields, and
    the columns of the customer and order exports of Shopify, WooCommerce,
    HubSpot, Stripe, Klaviyo and Magento; --column maps any others.

    Rows are stored in chunks of 5,000. Running the same command again after
    an interruption completes the import and stores nothing twice. An empty
    cell or a missing column leaves the stored value unchanged.

    Rejected rows are written to FILE.errors.csv with their line number and
    the reasons; all remaining rows are stored. Correct the rejected rows and
    import FILE.errors.csv in the same way. Progress is shown on standard
    error, the counts are printed at the end.

    Exit status: 0 if every row was stored; 1 if rows were rejected or not
    read; 2 if the import could not start or continue; 130 if interrupted.
    """


@app.command()
def consumers(
    file: File,
    org: Organization,
    mode: ModeOption = Mode.live,
    from_: From = None,
    column: Column = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    timezone: Timezone = None,
    decimal: Decimal = None,
    dry_run: DryRun = False,  # noqa: FBT002 (a flag)
    json: Json = False,  # noqa: FBT002 (a flag)
) -> None:
    """Import consumers: externalId, fullName, email, phone and metadata.KEY.

    Every row needs an externalId or an email. A row updates the consumer
    with the same externalId; else the consumer with the same email, unless
    with another externalId; else the row creates a consumer. Rows may
    exchange e-mail addresses: they must be unique at the end of the file.

    Metadata is merged key by key. Numbers, true, false and null are stored
    as such, unless a number has leading zeros or 16 digits or more.
    metadata.KEY:text, :number, :boolean and :list name another type.
    """
    form = _form(from_, column, delimiter, encoding, timezone, decimal)
    _import(kinds.CONSUMERS, file, org, mode, form, dry_run=dry_run, json=json)


@app.command()
def orders(
    file: File,
    org: Organization,
    mode: ModeOption = Mode.live,
    from_: From = None,
    column: Column = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    timezone: Timezone = None,
    decimal: Decimal = None,
    dry_run: DryRun = False,  # noqa: FBT002 (a flag)
    json: Json = False,  # noqa: FBT002 (a flag)
) -> None:
    """Import orders: externalId, the consumer, amount, and optional fields.

    The consumer, named by consumerId, consumerExternalId or consumerEmail,
    must exist. Optional fields, with the defaults of the API, are
    status, refundedAmount, currencyCode, baseAmount (the amount in the
    organization's currency, if the order has another), items (a JSON array),
    placedAt (a time with an offset, or a date) and metadata.KEY.

    A row updates the order with the same externalId, or creates an order.
    Every row needs an externalId: otherwise a second import would create the
    order again. The consumer of an order never changes.
    """
    form = _form(from_, column, delimiter, encoding, timezone, decimal)
    _import(kinds.ORDERS, file, org, mode, form, dry_run=dry_run, json=json)


def _form(
    system: System | None,
    column: list[str] | None,
    delimiter: str | None,
    encoding: str | None,
    timezone: str | None,
    decimal: str | None,
) -> Format:
    if decimal is not None and decimal not in DECIMALS:
        _stop(f"--decimal takes point or comma, not {decimal!r}", FAILED)
    if delimiter is not None:
        delimiter = DELIMITERS.get(delimiter.lower(), delimiter)
        if len(delimiter) != 1 or delimiter in '"\r\n':
            _stop(f"--delimiter takes one character, or tab, not {delimiter!r}", FAILED)
    try:
        mapping = parse_mapping(column or [])
    except ImportFailed as error:
        _stop(str(error), FAILED)
    return Format(mapping, system, delimiter, encoding, timezone, DECIMALS[decimal] if decimal else None)


def _import(kind: kinds.Kind, file: Path, org: str, mode: Mode, form: Format, *, dry_run: bool, json: bool) -> None:
    progress = ImportProgress()
    counts = Counts()

    def committed(current: Counts, share: float) -> None:
        nonlocal counts
        counts = current
        progress.show_rows(current.read, current.rejected, share)

    try:
        configured = settings.load()
        refuse_foreign_index(configured)
        with closing(connect(configured.session_url)) as connection, progress:
            counts = run(
                connection,
                STDIN if str(file) == "-" else file,
                kind,
                find_environment(connection, org, mode),
                form=form,
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
    if counts.unread:
        _stop(counts.unread, REJECTED)
    raise typer.Exit(REJECTED if counts.rejected else 0)


def _summary(counts: Counts, progress: ImportProgress, *, dry_run: bool) -> str:
    text = (
        f"{'Dry run, nothing stored: ' if dry_run else ''}{counts.read:,} rows read: {counts.inserted:,} inserted, "
        f"{counts.updated:,} updated, {counts.unchanged:,} unchanged, {counts.rejected:,} rejected "
        f"({progress.seconds():.1f} s, {progress.rate(counts.read):,.0f} rows/s)"
    )
    if counts.export:
        text += f"\nRead as a {counts.export}; {counts.continued:,} rows continue the row above"
    if counts.decimal_ids:
        text += f"\nNumbers were read without decimals, such as 12345.0 as 12345, in {', '.join(counts.decimal_ids)}"
    if counts.ignored:
        text += f'\nColumns not imported (--column "HEADER=metadata.KEY" imports one): {", ".join(counts.ignored)}'
    if counts.rejected:
        text += f"\nRejected rows with their reasons: {counts.errors_file}"
    return text


def _resume_hint(counts: Counts) -> str:
    return f"{counts.read:,} rows are done; run the same command again to continue"


def _stop(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201 (a command's output)
    raise typer.Exit(status)
