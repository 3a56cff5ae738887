"""`consumers index verify` and `consumers index repair`."""

from collections.abc import Iterable
from typing import Annotated

import sqlalchemy as sa
import typer

from infra.accounts.organizations import named_environment
from infra.cli.output import Json, print_json, print_table, printable
from infra.cli.runs import FinishedRun, follow_run, summary_line
from infra.operations.verify import Difference, RunKind, request_run

TABLE_ROWS = 50
"""Differences shown in the table; `--json` has all stored differences."""
DIFFERS = 1
"""Exit status of a verification with differences."""

Environment = Annotated[
    str | None, typer.Option(metavar="ORG:MODE", help="Limit the run to one environment, for example shop:live.")
]
RunId = Annotated[
    int | None, typer.Option(metavar="N", help="Repair only the differences that run N found; not with --environment.")
]


def verify(*, environment: Environment = None, json: Json = False) -> None:
    """Compare the index with the database and print the documents that differ.

    Shows the progress on standard error and waits for the end of the run.

    Exit status: 0 if index and database agree; 1 if index and database
    differ, or the command could not start; 2 if the run failed.
    """
    result = _follow("verify", environment)
    _print(result, json=json)
    if not result.agrees:
        raise typer.Exit(DIFFERS)


def repair(*, environment: Environment = None, run: RunId = None, json: Json = False) -> None:
    """Compare the index with the database and rewrite the documents that differ.

    The documents are written through the outbox, in the lane bulk. Once the
    lane is empty (see `consumers index status`), all documents are correct.
    Prints the differences found.

    Exit status: 0 if the run is done, with or without differences; 1 if the
    command could not start; 2 if the run failed.
    """
    if environment is not None and run is not None:
        raise typer.BadParameter("not allowed with --run, which has its own environment", param_hint="--environment")
    _print(_follow("repair", environment, run), json=json)


def _follow(kind: RunKind, environment: str | None, repairs: int | None = None) -> FinishedRun:
    def request(connection: sa.Connection) -> int:
        number = named_environment(connection, environment) if environment is not None else None
        return request_run(connection, kind, environment_id=number, repairs=repairs)

    return follow_run(request)


def _print(result: FinishedRun, *, json: bool) -> None:
    if json:
        print_json(result)
        return
    if result.found:
        headings = ("DOCUMENT", "CAUSE", "ENVIRONMENT", "DATABASE VERSION", "INDEX VERSION")
        print_table(headings, map(_cells, result.found[:TABLE_ROWS]))
        if result.differences > TABLE_ROWS:
            typer.echo(f"… and {result.differences - TABLE_ROWS:,} more.")
        typer.echo()
    typer.echo(summary_line(result))


def _cells(difference: Difference) -> Iterable[object]:
    yield printable(difference.document_id, "?")
    yield from (difference.cause, difference.environment, difference.database_version, difference.index_version)
