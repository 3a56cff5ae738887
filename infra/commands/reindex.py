"""`consumers index reindex`: some consumers are written to the index again."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from infra import db
from infra import reindex as again
from infra.commands.index import place_of
from infra.commands.output import Json, say_json
from infra.commands.transaction import database_told, transaction
from infra.organizations import environment_id
from infra.reindex import Scope
from infra.settings import load

Since = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])]


def reindex(
    *,
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="CONSUMER", help="This consumer; may be repeated.")
    ] = None,
    environment: Annotated[
        str | None, typer.Option(metavar="ORG:MODE", help="Those of this environment, such as shop:live.")
    ] = None,
    updated_since: Since = None,
    failed_since: Since = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    json: Json = False,
) -> None:
    """Write consumers to the index again as they are; all that is given must hold. Times are UTC."""
    if not (ids or environment or updated_since or failed_since):
        raise typer.BadParameter("say which: for all there is `consumers index rebuild`")
    number = None
    if environment is not None:
        with transaction() as connection:
            number = environment_id(connection, *place_of(environment))
    scope = Scope(
        ids=ids or None,
        environment_id=number,
        updated_since=updated_since and updated_since.replace(tzinfo=UTC),
        failed_since=failed_since and failed_since.replace(tzinfo=UTC),
    )
    engine = db.engine(load())
    try:
        with database_told():
            done = again.count(engine, scope) if dry_run else again.reindex(engine, scope)
    finally:
        engine.dispose()
    if json:
        say_json(done)
    else:
        noun = "consumer" if done.consumers == 1 else "consumers"
        typer.echo(f"{done.consumers:,} {noun} {'would' if dry_run else 'will'} be written again.")
