"""`consumers key …`."""

from collections.abc import Iterable
from typing import Annotated

import typer

from infra import fields
from infra.accounts import keys
from infra.accounts.keys import Key, NewKey
from infra.accounts.organizations import Mode
from infra.cli.output import Json, print_json, print_table
from infra.cli.transaction import transaction

key_app = typer.Typer(no_args_is_help=True, help="Secret keys to an organization's environments.")

Org = Annotated[str, typer.Argument(metavar="ORG", help="Name of the organization.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id, as `consumers key list` shows it.")]


@key_app.command()
def create(
    org: Org,
    *,
    mode: Annotated[Mode, typer.Option(help="The environment it opens.")],
    scopes: Annotated[str, typer.Option(help="What it may do, with commas between.", metavar="A,B")] = ",".join(
        keys.DEFAULT_SCOPES
    ),
    name: Annotated[str, typer.Option(help="What it is for.")] = "default",
    expires: Annotated[
        str | None, typer.Option(help="When it stops working: a date (its midnight in UTC), or a time.")
    ] = None,
    json: Json = False,
) -> None:
    """Create a key, and show it this once."""
    try:
        expires_at = fields.timestamp(expires) if expires else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires") from error
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    with transaction() as connection:
        created = keys.create(connection, org, mode, name=name, scopes=wanted, expires_at=expires_at)
    _say(created, json=json)


@key_app.command("list")
def every(org: Org, *, json: Json = False) -> None:
    """List an organization's keys, without their secrets."""
    with transaction() as connection:
        found = keys.list_all(connection, org)
    if json:
        print_json(found)
        return
    print_table(("ID", "MODE", "NAME", "KEY", "CREATED", "EXPIRES", "REVOKED", "LAST USED", "SCOPES"), map(_row, found))


@key_app.command()
def revoke(key_id: KeyId, *, json: Json = False) -> None:
    """Make a key invalid for good; within 5 seconds it stops working everywhere."""
    with transaction() as connection:
        revoked = keys.revoke(connection, key_id)
    if json:
        print_json(revoked)
    else:
        typer.echo(f"Revoked {revoked.id} ({revoked.name}, {revoked.organization} {revoked.mode}).")


@key_app.command()
def rotate(key_id: KeyId, *, json: Json = False) -> None:
    """Revoke a key and create another like it."""
    with transaction() as connection:
        created = keys.rotate(connection, key_id)
    _say(created, json=json)


def _say(created: NewKey, *, json: bool) -> None:
    if json:
        print_json(created)
        return
    # What stands beside the key goes to the other stream, so that `KEY=$(consumers key create …)` works.
    typer.echo(created.key)
    expiry = f", until {created.expires_at:%Y-%m-%d %H:%M} UTC" if created.expires_at else ""
    typer.echo(
        f"{created.id}: {created.organization} {created.mode}{expiry}, may {', '.join(created.scopes)}. "
        "Keep it now: it is not shown again.",
        err=True,
    )


def _row(key: Key) -> Iterable[object]:
    yield from (key.id, key.mode, key.name, f"{key.hint}…")
    yield from (key.created_at, key.expires_at, key.revoked_at, key.last_used_at, key.scopes)
