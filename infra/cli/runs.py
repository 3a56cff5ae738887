"""Request a run (verify, repair, reindex), wait for the end, and describe the run in a single line."""

import time
from collections.abc import Callable

import msgspec
import sqlalchemy as sa
import typer
from rich.progress import TimeRemainingColumn

from infra import queue
from infra.cli.progress import ProgressDisplay
from infra.cli.transaction import database_errors_as_one_line
from infra.database.engine import open_engine
from infra.index.ownership import refuse_foreign_index
from infra.operations.verify import MAX_STORED_DIFFERENCES, Difference, Run, find_run, stored_differences
from infra.queue import TaskQueue
from infra.settings import Settings, load

POLL_SECONDS = 0.2
FAILED = 2
"""Exit status of a failed run."""


class FinishedRun(Run, frozen=True, kw_only=True, rename="camel"):
    """A run with the stored differences: the JSON output of the commands."""

    found: list[Difference]


def follow_run(request: Callable[[sa.Connection], int]) -> FinishedRun:
    """Request a run and commit, show the progress, and return the run at the end.

    Raises:
        DatabaseError: the database cannot be used.
        ForeignIndexError: the index belongs to another installation.
        Exit: the run failed; the reason has been printed.
    """
    settings = load()
    refuse_foreign_index(settings)
    engine = open_engine(settings)
    try:
        with database_errors_as_one_line():
            with engine.begin() as connection:
                run_id = request(connection)
            _wake_workers(settings)
            run = _wait(engine, run_id)
            with engine.connect() as connection:
                differences = stored_differences(connection, run_id, MAX_STORED_DIFFERENCES)
    finally:
        engine.dispose()
    if run.state == "failed":
        typer.echo(f"run {run.id} failed: {run.error}", err=True)
        raise typer.Exit(FAILED)
    return FinishedRun(**msgspec.structs.asdict(run), found=differences)


def _wake_workers(settings: Settings) -> None:
    """Send a wake-up. If the wake-up is lost, beat sends another within a second."""
    task_queue = TaskQueue(settings)
    task_queue.send(queue.COMPARE)
    task_queue.close()


def _wait(engine: sa.Engine, run_id: int) -> Run:
    with ProgressDisplay(TimeRemainingColumn()) as display:
        while True:
            with engine.connect() as connection:
                run = find_run(connection, run_id)
            assert run, "a requested run is kept until it is over"
            display.show(progress_line(run), completed=run.compared, total=run.total)
            if run.is_over:
                return run
            time.sleep(POLL_SECONDS)


def progress_line(run: Run) -> str:
    """Describe the progress of a run in a single line."""
    if run.error:
        return f"run {run.id} waits: {run.error}"
    if run.seconds is None:
        return f"run {run.id} waits for a worker"
    rate = run.compared / max(run.seconds, 0.001)
    differences = "" if run.kind == "reindex" else f"{run.differences:,} differ, "
    total = f" of {run.total:,}" if run.total else ""
    return f"{run.compared:,}{total} consumers, {differences}{rate:,.0f}/s"


def summary_line(run: Run) -> str:
    """Describe the result of a run in a single line."""
    causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(run.causes.items()))
    differ = f"{run.differences:,} {'differs' if run.differences == 1 else 'differ'}"
    result = f"{differ} ({causes})" if run.differences else "all agree"
    in_flight = f"; {run.in_flight:,} not compared, a change is in the outbox" if run.in_flight else ""
    repaired = "; the differences are being rewritten" if run.mended else ""
    return f"run {run.id}: {run.compared:,} consumers in {run.seconds or 0:.1f} s, {result}{in_flight}{repaired}"
