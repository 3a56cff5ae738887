"""`consumers org create`, `list`, `limits`, `attributes` and `delete`."""

import shlex
import sys
import time
from collections.abc import Iterable
from typing import Annotated

import typer

from infra.accounts import organizations
from infra.accounts.keys import CACHE_SECONDS
from infra.accounts.organizations import Organization, OrganizationError
from infra.cli.output import Json, print_json, print_table
from infra.cli.transaction import transaction
from infra.exports import attributes
from infra.exports.attributes import METADATA

app = typer.Typer(no_args_is_help=True, help="Manage organizations. Each has a live and a test environment.")

Name = Annotated[str, typer.Argument(help="Name of the organization.")]
Currency = Annotated[str, typer.Option(help="Currency of the organization's totals, an ISO 4217 code.")]
Region = Annotated[
    str | None,
    typer.Option(
        help="Country of phone numbers without a country code, two letters such as GB. By default such numbers are "
        "stored as sent."
    ),
]
Yes = Annotated[
    str | None, typer.Option("--yes", metavar="NAME", help="The name again, for scripts: without a question.")
]
Declared = Annotated[list[str] | None, typer.Argument(metavar="metadata.KEY:TYPE", help="The attributes.")]
NoAttributes = Annotated[bool, typer.Option("--none", help="Remove all declarations.")]
Limit = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Requests a minute; 0 is no limit.")]
StoredMib = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="MiB of stored rows; 0 is no limit.")]

CONFIRM = (
    "This deletes every consumer, order, audience and key of {name}, live and test, and cannot be undone.\n"
    "Name of the organization to delete: "
)


@app.command()
def create(name: Name, *, currency: Currency = "USD", region: Region = None, json: Json = False) -> None:
    """Create an organization with the environments live and test.

    Exit status: 0, or 1 if the name is taken or a value is invalid.
    """
    with transaction() as connection:
        created = organizations.create(connection, name, currency=currency, region=region)
    if json:
        print_json(created)
    else:
        next_command = f"consumers key create {shlex.quote(created.name)} --mode live"
        typer.echo(f"Created {created.name} ({created.id}). Next: {next_command}")


@app.command("list")
def list_all(*, json: Json = False) -> None:
    """List all organizations with their limits, ordered by name.

    The state of an organization is active, or deleting after `org delete`.
    """
    with transaction() as connection:
        rows = organizations.list_all(connection)
    if json:
        print_json(rows)
    else:
        _print(rows)


@app.command()
def limits(
    name: Name,
    *,
    reads: Limit = None,
    writes: Limit = None,
    batch: Limit = None,
    stored_mib: StoredMib = None,
    json: Json = False,
) -> None:
    """Set limits for each environment of an organization, and print all limits.

    Limits without an option stay unchanged. Exit status: 0, or 1 if the
    organization does not exist.
    """
    options = {"reads": reads, "writes": writes, "batch": batch, "stored_mib": stored_mib}
    changes = {category: limit for category, limit in options.items() if limit is not None}
    with transaction() as connection:
        changed = organizations.set_limits(connection, name, changes)
    if json:
        print_json(changed)
    else:
        _print([changed])


@app.command("attributes")
def declare_attributes(
    name: Name, declared: Declared = None, *, none: NoAttributes = False, json: Json = False
) -> None:
    """Declare paths of metadata as attributes for analysts, or print them.

    Each is metadata.KEY:TYPE with the type text, number or boolean, for
    example metadata.country:text metadata.points:number. Further keys, after
    dots, lead into objects. The declarations replace all earlier ones.

    Exports without personal data show attributes, and no other metadata:
    declare only paths whose values identify no person.

    Exit status: 0, or 1 if a declaration is invalid or the organization does
    not exist.
    """
    if declared and none:
        raise typer.BadParameter("not allowed with attributes", param_hint="--none")
    with transaction() as connection:
        if declared or none:
            attributes.declare(connection, name, attributes.parse(declared or []))
        current = attributes.declared(connection, name)
    if json:
        print_json(current)
    else:
        print_table(
            ("ATTRIBUTE", "TYPE", "COLUMN"), ((METADATA + each.path, each.type, each.column) for each in current)
        )


@app.command()
def delete(name: Name, *, yes: Yes = None, json: Json = False) -> None:
    """Delete an organization: consumers, orders, audiences, keys, documents.

    Asks for the name again. No key of the organization is accepted when the
    command ends. The data is deleted in the background: meanwhile `consumers
    org list` shows the state deleting, and afterwards the name is free. A
    deletion cannot be undone.

    Exit status: 0 if the deletion has begun; 1 if the organization does not
    exist, is being deleted already, or the names differ.
    """
    with transaction() as connection:
        organization = organizations.get(connection, name)
    if yes is None:
        # On standard error, because standard output is for the result.
        typer.echo(CONFIRM.format(name=organization.name), err=True, nl=False)
        yes = sys.stdin.readline().strip()
    if yes != organization.name:
        raise OrganizationError(f"the name to confirm differs from {organization.name!r}: nothing was deleted")
    with transaction() as connection:
        deleted = organizations.delete(connection, name)
    time.sleep(CACHE_SECONDS)
    if json:
        print_json(deleted)
    else:
        typer.echo(
            f"Deleting {deleted.name} ({deleted.id}): its keys are revoked, and the indexer deletes the data. "
            "The deletion is complete when `consumers org list` omits the organization."
        )


def _print(rows: list[Organization]) -> None:
    print_table(("NAME", "ID", "CURRENCY", "REGION", "READS", "WRITES", "BATCH", "STORED", "STATE"), map(_cells, rows))


def _cells(row: Organization) -> Iterable[object]:
    yield from (row.name, row.id, row.currency, row.region)
    yield from map(_limit, (row.limit_reads, row.limit_writes, row.limit_batch))
    yield _limit(row.limit_stored_mib, " MiB")
    yield "deleting" if row.deleted_at else "active"


def _limit(number: int | None, unit: str = "/min") -> str:
    return {None: "default", 0: "none"}.get(number, f"{number}{unit}")
