"""`consumers doctor`: check the deployment."""

from itertools import chain
from typing import Annotated

import typer

from infra.cli.output import Json, print_json
from infra.doctor import checks, connections, floors, nodes, ownership, releases, shards
from infra.doctor.checks import Check, Result
from infra.settings import load

ALL: tuple[Check, ...] = (
    *connections.CHECKS,
    *ownership.CHECKS,
    *releases.CHECKS,
    *floors.CHECKS,
    *nodes.CHECKS,
    *shards.CHECKS,
)
"""The checks of all modules, in the order of the output."""

Only = Annotated[str | None, typer.Option(metavar="CHECK", help="Only checks whose name begins so, for example nodes.")]


def doctor(*, only: Only = None, json: Json = False) -> None:
    """Check settings and states of the servers that would break a guarantee.

    Prints each check, and for each fault what is wrong and what to do.
    Nothing is changed. Exit status: 0 without a fault; 1 with a fault, also
    if a server does not answer; 2 if --only names no check.
    """
    chosen = [check for check in ALL if checks.name_of(check).startswith(only or "")]
    if not chosen:
        raise typer.BadParameter("no check has a name that begins so", param_hint="--only")
    results = []
    for result in checks.run(chosen, load()):
        results.append(result)
        if not json:
            _print(result)
    if json:
        print_json(results)
    if not all(result.ok for result in results):
        raise typer.Exit(1)


def _print(result: Result) -> None:
    typer.echo(f"{'ok   ' if result.ok else 'fault'}  {result.check}")
    for line in chain.from_iterable((finding.problem, f"  {finding.advice}") for finding in result.findings):
        typer.echo(f"         {line}")
