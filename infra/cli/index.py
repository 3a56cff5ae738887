"""`consumers index status` and `retry-parked`, and the group of all index commands."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
import typer

from infra.accounts.organizations import OrganizationError, environment_id, parse_environment
from infra.cli import rebuild, reindex, verify
from infra.cli.output import Json, print_json, print_table, printable, rebuild_line
from infra.cli.runs import progress_line, summary_line
from infra.cli.transaction import transaction
from infra.operations import counters, outbox, status
from infra.queue import DRAIN, TaskQueue
from infra.settings import load
from infra.wire import time

app = typer.Typer(no_args_is_help=True, help="Manage the search index: its status, rebuilds, verifications.")

REASON_LENGTH = 200
"""Characters of a reason shown in the table."""

Environment = Annotated[
    str | None, typer.Option(metavar="ORG:MODE", help="Only changes of this environment, for example shop:live.")
]
Ids = Annotated[
    list[str] | None, typer.Option("--id", metavar="CONSUMER", help="Only changes of this consumer; may be repeated.")
]


class Retried(msgspec.Struct):
    retried: int
    woken: bool
    """Whether a wake-up was sent. Otherwise the indexer finds the rows within two seconds."""


@app.command("status")
def show(*, json: Json = False) -> None:
    """Print the status of the index: generations, lanes, runs, workers, parked changes.

    If OpenSearch does not respond, the column OPENSEARCH has the error. Exit
    status: 0, or 1 if the database cannot be used.
    """
    settings = load()
    with transaction() as connection:
        current = status.read_status(connection, settings)
    if json:
        print_json(current)
    else:
        _print(current)


@app.command()
def retry_parked(*, environment: Environment = None, ids: Ids = None, json: Json = False) -> None:
    """Return parked changes to the drain, for up to five more attempts each.

    Without an option all parked changes are returned. Prints their number.
    Exit status: 0, also if there are none; 1 if the organization does not
    exist; 2 if an option is invalid.
    """
    settings = load()
    try:
        organization_and_mode = parse_environment(environment) if environment is not None else None
    except OrganizationError as error:
        raise typer.BadParameter(str(error), param_hint="--environment") from error
    with transaction() as connection:
        number = environment_id(connection, *organization_and_mode) if organization_and_mode else None
        retried = outbox.retry(connection, environment_id=number, ids=ids or None)
    # After the commit: a drain woken earlier would not see the rows.
    task_queue = TaskQueue(settings)
    result = Retried(retried, task_queue.send(DRAIN))
    task_queue.close()
    if json:
        print_json(result)
    else:
        typer.echo(f"{retried} parked {'change' if retried == 1 else 'changes'} will be tried again.")


app.command()(verify.verify)
app.command()(verify.repair)
rebuild.add_commands(app)
app.command()(reindex.reindex)


def _print(current: status.Status) -> None:
    if current.epoch:
        epoch = current.epoch
        typer.echo(f"Epoch {epoch.number} of the database ({epoch.reason}), since {time(epoch.began_at)}")
    headings = ("INDEX", "STATE", "DOCUMENT VERSION", "MAPPING", "OPENSEARCH", "ALIASES", "DOCUMENTS", "SIZE")
    generations = (_generation(generation, current.search) for generation in current.generations)
    print_table((*headings, "POSITION", "MISSES"), generations)
    if current.rebuild:
        typer.echo(f"Last rebuild: {rebuild_line(current.rebuild)}")
    typer.echo()
    headings = ("LANE", "WAITING", "OLDEST", "PARKED", "INDEXED CHANGES", "DOCUMENTS", "CONFLICTS", "FAILURES")
    print_table((*headings, "LAST"), map(_lane, current.waiting, current.done))
    typer.echo()
    print_table(("VERIFIED", "AT"), ((summary_line(run), run.finished_at) for run in current.verified))
    if current.running:
        typer.echo()
        runs = ((f"{run.kind}: {progress_line(run)}", run.requested_at) for run in current.running)
        print_table(("REQUESTED", "AT"), runs)
    typer.echo()
    parts = ((part.part, _seconds(part.silent_seconds), part.processes) for part in current.parts)
    print_table(("PART", "SILENT FOR", "PROCESSES"), parts)
    if current.workers:
        typer.echo()
        rows = ((row.worker, row.lane, row.rounds, row.changes, row.updated_at) for row in current.workers)
        print_table(("WORKER", "LANE", "ROUNDS", "INDEXED CHANGES", "LAST"), rows)
    _print_parked(current)


def _print_parked(current: status.Status) -> None:
    if not current.parked:
        return
    typer.echo()
    print_table(("PARKED", "ENVIRONMENT", "VERSION", "ATTEMPTS", "SINCE", "REASON"), map(_parked, current.parked))
    total = sum(lane.parked for lane in current.waiting)
    if total > len(current.parked):
        typer.echo(f"… and {_count(total - len(current.parked))} more.")


def _generation(row: status.Generation, search: str) -> Iterable[object]:
    yield from (row.index_name, "lost" if row.lost_at else row.state, row.document_version)
    differs = "differs: consumers index rebuild" if row.state == "live" else "differs"
    yield "as declared" if row.is_as_declared else differs
    yield row.index or search
    yield None if row.aliases is None else row.aliases or "none"
    yield row.documents
    yield None if row.bytes is None else f"{row.bytes / 1_000_000:.1f} MB"
    yield from (row.position, row.misses)


def _lane(backlog: outbox.Waiting, totals: counters.Totals) -> Iterable[object]:
    yield from (backlog.lane, _count(backlog.waiting), _seconds(backlog.oldest_seconds if backlog.waiting else None))
    yield from (_count(backlog.parked), totals.changes, totals.documents)
    yield from (totals.conflicts, totals.failures, totals.updated_at)


def _parked(row: outbox.Parked) -> Iterable[object]:
    yield from (row.consumer_id, f"{row.organization}:{row.mode}", row.version, row.attempts, row.parked_at)
    yield " ".join(printable(row.reason or "", " ").split())[:REASON_LENGTH]


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.1f} s"


def _count(number: int) -> str:
    return f"{number} or more" if number >= outbox.COUNT_LIMIT else str(number)
