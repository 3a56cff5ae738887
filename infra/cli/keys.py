"""`consumers key create`, `list`, `revoke` and `rotate`."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import typer

from infra import fields
from infra.accounts import keys
from infra.accounts.keys import Key, NewKey
from infra.accounts.organizations import Mode
from infra.cli.output import Json, print_json, print_table
from infra.cli.transaction import transaction

app = typer.Typer(no_args_is_help=True, help="Manage the secret keys to an organization's environments.")

Org = Annotated[str, typer.Argument(metavar="ORG", help="Name of the organization.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="Id of the key; `consumers key list` prints it.")]
ModeOption = Annotated[Mode, typer.Option("--mode", help="Environment that the key opens.")]
ALL_SCOPES = ",".join(keys.SCOPES)
Scopes = Annotated[
    str,
    typer.Option(
        metavar="SCOPE,SCOPE",
        help=f"Scopes of the key, separated by commas; by default all. Allowed are {', '.join(keys.SCOPES)}.",
    ),
]
Name = Annotated[str, typer.Option(help="Name shown in lists, for example the program that uses the key.")]
Expires = Annotated[
    str | None,
    typer.Option(help="Time at which the key expires: a date (midnight UTC) or RFC 3339. By default never."),
]

Overlap = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="How long the key stays valid beside the new one, such as 30m, 24h or 7d."),
]
DURATION = re.compile("([1-9][0-9]{0,4})([mhd])")
UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


@app.command()
def create(
    org: Org,
    *,
    mode: ModeOption,
    scopes: Scopes = ALL_SCOPES,
    name: Name = "default",
    expires: Expires = None,
    json: Json = False,
) -> None:
    """Create and print a key. The key cannot be printed again.

    Prints the key on standard output, and the properties of the key on
    standard error. Exit status: 0; 1 if the organization does not exist or a value is
    invalid; 2 if an option is invalid.
    """
    expires_at = expiry_of(expires)
    requested = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    with transaction() as connection:
        created = keys.create(connection, org, mode, name=name, scopes=requested, expires_at=expires_at)
    _print(created, json=json)


@app.command("list")
def list_all(org: Org, *, json: Json = False) -> None:
    """List the keys of an organization, without their secrets.

    Revoked and expired keys are included. Exit status: 0, or 1 if the
    organization does not exist.
    """
    with transaction() as connection:
        rows = keys.list_all(connection, org)
    if json:
        print_json(rows)
        return
    headings = ("ID", "MODE", "NAME", "KEY", "CREATED", "EXPIRES", "REVOKED", "LAST USED", "SCOPES")
    print_table(headings, map(_cells, rows))
    if any(keys.ADMIN in row.scopes and row.revoked_at is None for row in rows):
        typer.echo(f"Keys of earlier releases: {keys.ADMIN_REMOVED}. Their other scopes work.", err=True)


@app.command()
def revoke(key_id: KeyId, *, json: Json = False) -> None:
    """Revoke a key for good. Every process rejects the key within 5 seconds.

    Revoking a revoked key changes nothing. Exit status: 0, or 1 if the
    key does not exist.
    """
    with transaction() as connection:
        revoked = keys.revoke(connection, key_id)
    if json:
        print_json(revoked)
    else:
        typer.echo(f"Revoked {revoked.id} ({revoked.name}, {revoked.organization} {revoked.mode}).")


@app.command()
def rotate(key_id: KeyId, *, overlap: Overlap = None, json: Json = False) -> None:
    """Revoke a key, and create and print another with the same properties.

    Environment, name, scopes and expiry stay the same; the removed scope
    admin is left out. With --overlap the key expires after that time
    instead, so that its users can be changed one after the other.
    Exit status: 0; 1 if the key does not exist, is revoked or expired, or
    has no other scope; 2 if an option is invalid.
    """
    with transaction() as connection:
        created = keys.rotate(connection, key_id, overlap_seconds=_seconds(overlap) if overlap else 0)
    _print(created, json=json)


def expiry_of(expires: str | None) -> datetime | None:
    """Read the option --expires."""
    try:
        return fields.timestamp(expires) if expires else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires") from error


def _seconds(overlap: str) -> int:
    """Read the option --overlap."""
    if not (match := DURATION.fullmatch(overlap)):
        raise typer.BadParameter("expected a number and a unit, such as 30m, 24h or 7d", param_hint="--overlap")
    return int(match[1]) * UNIT_SECONDS[match[2]]


def _print(created: NewKey, *, json: bool) -> None:
    if json:
        print_json(created)
        return
    # Only the key on standard output: `KEY=$(consumers key create …)` must work.
    typer.echo(created.key)
    expiry = f", until {created.expires_at:%Y-%m-%d %H:%M} UTC" if created.expires_at else ""
    typer.echo(
        f"{created.id}: {created.organization} {created.mode}{expiry}, scopes {', '.join(created.scopes)}. "
        "Store the key now: it is not shown again.",
        err=True,
    )


def _cells(key: Key) -> Iterable[object]:
    yield from (key.id, key.mode, key.name, f"{key.hint}…")
    scopes = ["admin (removed)" if scope == keys.ADMIN else scope for scope in key.scopes]
    yield from (key.created_at, key.expires_at, key.revoked_at, key.last_used_at, scopes)
