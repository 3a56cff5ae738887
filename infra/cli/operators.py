"""`consumers operator create`, `list` and `revoke`."""

from collections.abc import Iterable
from typing import Annotated

import typer

from infra.accounts import operators
from infra.accounts.operators import OperatorKey
from infra.cli.keys import Expires, Name, expiry_of
from infra.cli.output import Json, print_json, print_table
from infra.cli.transaction import transaction

app = typer.Typer(
    no_args_is_help=True,
    help="Manage the keys of operators. They open /api/v1/ops, and nothing of any organization's own API.",
)

KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="Id of the key; `consumers operator list` prints it.")]


@app.command()
def create(*, name: Name = "default", expires: Expires = None, json: Json = False) -> None:
    """Create and print a key. The key cannot be printed again.

    The key reaches the data of all organizations: never give it to a
    merchant. Prints the key on standard output, and the properties of the
    key on standard error. Exit status: 0; 1 if a value is invalid; 2 if an
    option is invalid.
    """
    expires_at = expiry_of(expires)
    with transaction() as connection:
        created = operators.create(connection, name=name, expires_at=expires_at)
    if json:
        print_json(created)
        return
    # Only the key on standard output: `KEY=$(consumers operator create …)` must work.
    typer.echo(created.key)
    expiry = f" until {created.expires_at:%Y-%m-%d %H:%M} UTC" if created.expires_at else ""
    typer.echo(f"{created.id} ({created.name}){expiry}. Store the key now: it is not shown again.", err=True)


@app.command("list")
def list_all(*, json: Json = False) -> None:
    """List the keys of operators, without their secrets.

    Revoked and expired keys are included.
    """
    with transaction() as connection:
        rows = operators.list_all(connection)
    if json:
        print_json(rows)
    else:
        print_table(("ID", "NAME", "KEY", "CREATED", "EXPIRES", "REVOKED", "LAST USED"), map(_cells, rows))


@app.command()
def revoke(key_id: KeyId, *, json: Json = False) -> None:
    """Revoke a key for good. Every process rejects the key within 5 seconds.

    Revoking a revoked key changes nothing. Exit status: 0, or 1 if the
    key does not exist.
    """
    with transaction() as connection:
        revoked = operators.revoke(connection, key_id)
    if json:
        print_json(revoked)
    else:
        typer.echo(f"Revoked {revoked.id} ({revoked.name}).")


def _cells(key: OperatorKey) -> Iterable[object]:
    yield from (key.id, key.name, f"{key.hint}…")
    yield from (key.created_at, key.expires_at, key.revoked_at, key.last_used_at)
