"""`consumers index reindex`: some consumers are written to the index again."""

from datetime import datetime
from typing import Annotated

import sqlalchemy as sa
import typer
from opensearchpy.exceptions import OpenSearchException

from infra import logs
from infra.cli.output import Json, print_json
from infra.cli.transaction import transaction
from infra.cli.verify import FAILED, follow
from infra.index.client import open_client
from infra.index.naming import read_alias
from infra.operations import reindex as again
from infra.operations.reindex import Asked, Counted, ReindexError
from infra.settings import load

Since = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])]
OPTIONS = {"ids": "--id", "environment": "--environment", "filter": "--filter"}


def reindex(
    *,
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="CONSUMER", help="This consumer; may be repeated.")
    ] = None,
    environment: Annotated[
        str | None, typer.Option(metavar="ORG:MODE", help="Those of this environment, such as shop:live.")
    ] = None,
    matching: Annotated[
        str | None, typer.Option("--filter", metavar="EXPRESSION", help="Those that lists find by this filter.")
    ] = None,
    updated_since: Since = None,
    failed_since: Since = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    json: Json = False,
) -> None:
    """Write consumers to the index again as they are; all that is given must hold. Times are UTC."""
    asked = Asked(
        ids=ids, environment=environment, filter=matching, updated_since=updated_since, failed_since=failed_since
    )
    if dry_run:
        counted = _count(asked)
        if json:
            print_json(counted)
        else:
            typer.echo(f"{_consumers(counted.consumers)} would be written again.")
        return
    run = follow(lambda connection: again.request(connection, _scope(connection, asked)))
    if json:
        print_json(run)
    else:
        typer.echo(f"run {run.id}: {_consumers(run.compared)} will be written again; {run.seconds or 0:.1f} s.")


def _scope(connection: sa.Connection, asked: Asked) -> again.Scope:
    try:
        return again.scope(connection, asked)
    except ReindexError as error:
        raise typer.BadParameter(str(error), param_hint=OPTIONS[error.field]) from error


def _count(asked: Asked) -> Counted:
    settings = load()
    with transaction() as connection:
        scope = _scope(connection, asked)
        found_by = again.query(connection, scope)
        if found_by is None:
            return Counted(consumers=again.count(connection, scope))
    # OpenSearch may take its time; nothing is held meanwhile.
    client = open_client(settings)
    try:
        return Counted(consumers=again.matches(client, read_alias(settings.index_prefix), found_by))
    except OpenSearchException as error:
        typer.echo(f"OpenSearch (OPENSEARCH_URL) cannot be used: {logs.error_kind(error)}", err=True)
        raise typer.Exit(FAILED) from error
    finally:
        client.close()


def _consumers(number: int) -> str:
    return f"{number:,} {'consumer' if number == 1 else 'consumers'}"
