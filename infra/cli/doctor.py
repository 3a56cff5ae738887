"""`consumers doctor`: check the deployment."""

from typing import Annotated

import typer

from infra.cli.output import Json, print_json
from infra.doctor import catalog, checks
from infra.doctor.checks import Result
from infra.settings import load

Only = Annotated[str | None, typer.Option(metavar="CHECK", help="Only checks whose name begins so, for example nodes.")]


def doctor(*, only: Only = None, json: Json = False) -> None:
    """Check settings and states of the servers that would break a guarantee.

    Prints each check as ok, warn or fault, with the problem and the correction.
    A warning is a risk or a choice, and breaks no guarantee. Nothing is
    changed. Exit status: 0 without a fault; 1 with a fault, also if a server
    does not answer; 2 if --only names no check.
    """
    chosen = [check for check in catalog.ALL if checks.name_of(check).startswith(only or "")]
    if not chosen:
        subjects = ", ".join(dict.fromkeys(checks.name_of(check).partition(".")[0] for check in catalog.ALL))
        raise typer.BadParameter(f"no check has a name that begins so: use one of {subjects}", param_hint="--only")
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
    word = "fault" if not result.ok else "warn " if result.findings else "ok   "
    typer.echo(f"{word}  {result.check}")
    for finding in result.findings:
        for line in catalog.lines(finding):
            typer.echo(line)
