"""`consumers org …`."""

import shlex
from collections.abc import Iterable
from typing import Annotated

import typer

from infra.accounts import organizations
from infra.accounts.organizations import Organization
from infra.cli.output import Json, print_json, print_table
from infra.cli.transaction import transaction

org_app = typer.Typer(no_args_is_help=True, help="Organizations, each with a live and a test environment.")

Name = Annotated[str, typer.Argument(help="Name of the organization.")]
Limit = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Requests a minute; 0: no limit.")]


@org_app.command()
def create(
    name: Name,
    *,
    currency: Annotated[str, typer.Option(help="What its totals are in; ISO 4217.")] = "USD",
    region: Annotated[str | None, typer.Option(help="Country of national phone numbers, such as GB.")] = None,
    json: Json = False,
) -> None:
    """Create an organization with its environments live and test."""
    with transaction() as connection:
        created = organizations.create(connection, name, currency=currency, region=region)
    if json:
        print_json(created)
    else:
        following = f"consumers key create {shlex.quote(created.name)} --mode live"
        typer.echo(f"Created {created.name} ({created.id}). Next: {following}")


@org_app.command("list")
def every(*, json: Json = False) -> None:
    """List the organizations."""
    with transaction() as connection:
        found = organizations.list_all(connection)
    if json:
        print_json(found)
    else:
        _table(found)


@org_app.command()
def limits(name: Name, *, reads: Limit = None, writes: Limit = None, batch: Limit = None, json: Json = False) -> None:
    """Set the rate limits of each of its environments; those not given stay as they are."""
    given = {"reads": reads, "writes": writes, "batch": batch}
    with transaction() as connection:
        changed = organizations.set_limits(
            connection, name, {kind: number for kind, number in given.items() if number is not None}
        )
    if json:
        print_json(changed)
    else:
        _table([changed])


def _table(rows: list[Organization]) -> None:
    print_table(("NAME", "ID", "CURRENCY", "REGION", "READS", "WRITES", "BATCH"), map(_row, rows))


def _row(row: Organization) -> Iterable[object]:
    yield from (row.name, row.id, row.currency, row.region)
    yield from map(_limit, (row.limit_reads, row.limit_writes, row.limit_batch))


def _limit(number: int | None) -> str:
    return {None: "default", 0: "none"}.get(number, f"{number}/min")
