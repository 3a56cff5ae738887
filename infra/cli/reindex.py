"""`consumers index reindex`."""

from datetime import datetime
from typing import Annotated

import sqlalchemy as sa
import typer
from opensearchpy.exceptions import OpenSearchException

from infra import logs
from infra.cli.output import Json, print_json
from infra.cli.runs import FAILED, follow_run
from infra.cli.transaction import transaction
from infra.index.client import open_client
from infra.index.naming import read_alias
from infra.operations.reindex import (
    Counted,
    ReindexError,
    ReindexRequest,
    ReindexScope,
    check_request,
    count_matches,
    count_rows,
    index_query,
    request_reindex,
)
from infra.settings import load

FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]
OPTIONS = {"ids": "--id", "environment": "--environment", "filter": "--filter"}
"""The option for each field of a request, to name the invalid option."""

Ids = Annotated[list[str] | None, typer.Option("--id", metavar="CONSUMER", help="This consumer; may be repeated.")]
Environment = Annotated[
    str | None, typer.Option(metavar="ORG:MODE", help="Consumers of this environment, for example shop:live.")
]
Filter = Annotated[
    str | None,
    typer.Option("--filter", metavar="EXPRESSION", help="Consumers that match this list filter; needs --environment."),
]
UpdatedSince = Annotated[
    datetime | None, typer.Option(formats=FORMATS, help="Consumers changed at this time (UTC) or later.")
]
FailedSince = Annotated[
    datetime | None,
    typer.Option(
        formats=FORMATS,
        help="Consumers with a refused document for a change at this time (UTC) or later.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the number of consumers and write nothing.")]


def reindex(
    *,
    ids: Ids = None,
    environment: Environment = None,
    matching: Filter = None,
    updated_since: UpdatedSince = None,
    failed_since: FailedSince = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write chosen consumers to the index again, unchanged.

    Choose consumers by at least one option; a consumer must meet every
    condition given. Prints the number of consumers added to the outbox, in
    the lane bulk; a worker writes their documents afterwards.

    Exit status: 0 if the run is done; 1 if the command could not start; 2 if
    an option is invalid or the run failed.
    """
    request = ReindexRequest(
        ids=ids, environment=environment, filter=matching, updated_since=updated_since, failed_since=failed_since
    )
    if dry_run:
        counted = _count(request)
        if json:
            print_json(counted)
        else:
            typer.echo(f"{_consumers(counted.consumers)} would be written again.")
        return
    run = follow_run(lambda connection: request_reindex(connection, _check(connection, request)))
    if json:
        print_json(run)
    else:
        typer.echo(f"run {run.id}: {_consumers(run.compared)} will be written again; {run.seconds or 0:.1f} s.")


def _check(connection: sa.Connection, request: ReindexRequest) -> ReindexScope:
    try:
        return check_request(connection, request)
    except ReindexError as error:
        raise typer.BadParameter(str(error), param_hint=OPTIONS[error.field]) from error


def _count(request: ReindexRequest) -> Counted:
    settings = load()
    with transaction() as connection:
        scope = _check(connection, request)
        query = index_query(connection, scope)
        if query is None:
            return Counted(consumers=count_rows(connection, scope))
    # After the transaction, because OpenSearch may respond slowly.
    client = open_client(settings)
    try:
        return Counted(consumers=count_matches(client, read_alias(settings.index_prefix), query))
    except OpenSearchException as error:
        typer.echo(f"OpenSearch (OPENSEARCH_URL) cannot be used: {logs.error_kind(error)}", err=True)
        raise typer.Exit(FAILED) from error
    finally:
        client.close()


def _consumers(number: int) -> str:
    return f"{number:,} {'consumer' if number == 1 else 'consumers'}"
