"""`consumers index verify` and `consumers index repair`, and what they have in common with `reindex`: they ask the
indexer, and show how far it is.
"""

import time
from collections.abc import Callable, Iterable
from typing import Annotated

import msgspec
import sqlalchemy as sa
import typer
from rich.progress import TimeRemainingColumn

from infra import queue
from infra.accounts.organizations import named_environment
from infra.cli.output import Json, print_json, print_table
from infra.cli.progress import ProgressDisplay
from infra.cli.transaction import database_errors_as_one_line
from infra.database.engine import open_engine
from infra.operations import verify as verifications
from infra.operations.verify import Difference, Kind, Run
from infra.queue import TaskQueue
from infra.settings import Settings, load

SHOWN = 50
"""Differences that a table names; `--json` has all that are known."""
POLL_SECONDS = 0.2
DIFFERS, FAILED = 1, 2

Environment = Annotated[str | None, typer.Option(metavar="ORG:MODE", help="This environment alone, such as shop:live.")]


class Answer(Run, frozen=True, kw_only=True, rename="camel"):
    """A run, and what it found."""

    found: list[Difference]


def verify(*, environment: Environment = None, json: Json = False) -> None:
    """Compare the index with the database; 0: they agree, 1: they differ, 2: it could not be told."""
    answer = follow(lambda connection: _requested(connection, "verify", environment, None))
    _say(answer, json=json)
    if not answer.agrees:
        raise typer.Exit(DIFFERS)


def repair(
    *,
    environment: Environment = None,
    run: Annotated[int | None, typer.Option(metavar="N", help="Mend what this run found, and nothing else.")] = None,
    json: Json = False,
) -> None:
    """Compare the index with the database, and have written anew what differs; 2: it could not be done."""
    if environment is not None and run is not None:
        raise typer.BadParameter("a run is of its own environment already", param_hint="--environment")
    _say(follow(lambda connection: _requested(connection, "repair", environment, run)), json=json)


def _requested(connection: sa.Connection, kind: Kind, environment: str | None, repairs: int | None) -> int:
    scope = named_environment(connection, environment) if environment is not None else None
    return verifications.request(connection, kind, environment_id=scope, repairs=repairs)


def follow(ask: Callable[[sa.Connection], int]) -> Answer:
    """Ask for a run, in a transaction, and wait for its end.

    Raises:
        DatabaseError: as `database_errors_as_one_line` says.
        Exit: it has failed, which was said.
    """
    settings = load()
    engine = open_engine(settings)
    try:
        with database_errors_as_one_line():
            with engine.begin() as connection:
                number = ask(connection)
            _wake(settings)
            run = _watch(engine, number)
            with engine.connect() as connection:
                found = verifications.differences(connection, number, verifications.KEPT)
    finally:
        engine.dispose()
    if run.state == "failed":
        typer.echo(f"run {run.id} failed: {run.error}", err=True)
        raise typer.Exit(FAILED)
    return Answer(**msgspec.structs.asdict(run), found=found)


def _wake(settings: Settings) -> None:
    """Should that be lost, beat does it within a second."""
    task_queue = TaskQueue(settings)
    task_queue.send(queue.COMPARE, queue.REBUILD)
    task_queue.close()


def _watch(engine: sa.Engine, number: int) -> Run:
    with ProgressDisplay(TimeRemainingColumn()) as display:
        while True:
            with engine.connect() as connection:
                run = verifications.run(connection, number)
            assert run, "a run that was asked for is kept until it is over"
            display.show(progress(run), completed=run.compared, total=run.total)
            if run.is_over:
                return run
            time.sleep(POLL_SECONDS)


def progress(run: Run) -> str:
    """How far a run is, in one line."""
    if run.error:
        return f"run {run.id} waits: {run.error}"
    if run.seconds is None:
        return f"run {run.id} waits for a worker"
    rate = run.compared / max(run.seconds, 0.001)
    differ = "" if run.kind == "reindex" else f"{run.differences:,} differ, "
    return f"{run.compared:,} of {run.total or 0:,} consumers, {differ}{rate:,.0f}/s"


def _say(answer: Answer, *, json: bool) -> None:
    if json:
        print_json(answer)
        return
    if answer.found:
        headings = ("DOCUMENT", "CAUSE", "ENVIRONMENT", "DATABASE VERSION", "INDEX VERSION")
        print_table(headings, map(_difference, answer.found[:SHOWN]))
        if answer.differences > SHOWN:
            typer.echo(f"… and {answer.differences - SHOWN:,} more.")
        typer.echo()
    typer.echo(summary(answer))


def _difference(found: Difference) -> Iterable[object]:
    # An id is whatever somebody wrote into the index, and must not act in a terminal.
    yield "".join(letter if letter.isprintable() else "?" for letter in found.document_id)
    yield from (found.cause, found.environment, found.database_version, found.index_version)


def summary(run: Run) -> str:
    """A run in one line."""
    causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(run.causes.items()))
    differing = f"{run.differences:,} {'differs' if run.differences == 1 else 'differ'}"
    result = f"{differing} ({causes})" if run.differences else "all agree"
    mended = "; what differed is being written anew" if run.mended else ""
    flight = f"; {run.in_flight:,} were on their way" if run.in_flight else ""
    return f"run {run.id}: {run.compared:,} consumers in {run.seconds or 0:.1f} s, {result}{flight}{mended}"
