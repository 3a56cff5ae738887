"""`consumers index …`."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
import typer

from infra.accounts.organizations import OrganizationError, environment_id, parse_environment
from infra.cli import verify
from infra.cli.output import Json, print_json, print_table, rebuild_line
from infra.cli.runs import progress_line, summary_line
from infra.cli.transaction import transaction
from infra.operations import counters, outbox, status
from infra.queue import TaskQueue
from infra.settings import load

index_app = typer.Typer(no_args_is_help=True, help="The search index, and what is on its way to it.")

index_app.command()(verify.verify)
index_app.command()(verify.repair)

REASON = 200
"""Characters of a reason that a table shows."""


class Retried(msgspec.Struct):
    retried: int
    woken: bool
    """Whether the indexer was told at once; else it finds the rows within a second or two by itself."""


@index_app.command("status")
def show(*, json: Json = False) -> None:
    """Show the index, what is on its way to it, what was given up, and who is at work."""
    settings = load()
    with transaction() as connection:
        found = status.read_status(connection, settings)
    if json:
        print_json(found)
    else:
        _say(found)


@index_app.command()
def retry_parked(
    *,
    environment: Annotated[
        str | None, typer.Option(metavar="ORG:MODE", help="Of this environment alone, such as shop:live.")
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="CONSUMER", help="Of this consumer alone; may be repeated.")
    ] = None,
    json: Json = False,
) -> None:
    """Try again what was given up: all of it, or of one environment, or of some consumers."""
    settings = load()
    try:
        organization_and_mode = parse_environment(environment) if environment is not None else None
    except OrganizationError as error:
        raise typer.BadParameter(str(error), param_hint="--environment") from error
    with transaction() as connection:
        number = environment_id(connection, *organization_and_mode) if organization_and_mode else None
        retried = outbox.retry(connection, environment_id=number, ids=ids or None)
    # Only now, for it is about what is committed.
    task_queue = TaskQueue(settings)
    answer = Retried(retried, task_queue.wake_drain())
    task_queue.close()
    if json:
        print_json(answer)
    else:
        typer.echo(f"{retried} parked {'change' if retried == 1 else 'changes'} will be tried again.")


def _say(found: status.Status) -> None:
    headings = ("INDEX", "STATE", "DOCUMENT VERSION", "MAPPING", "OPENSEARCH", "ALIASES", "DOCUMENTS", "SIZE")
    generations = (_generation(each, found.search) for each in found.generations)
    print_table((*headings, "POSITION", "MISSES"), generations)
    if found.rebuild:
        typer.echo(f"Last rebuild: {rebuild_line(found.rebuild)}")
    typer.echo()
    counted = ("LANE", "WAITING", "OLDEST", "PARKED", "INDEXED CHANGES", "DOCUMENTS", "CONFLICTS", "FAILURES", "LAST")
    print_table(counted, map(_lane, found.waiting, found.done))
    typer.echo()
    verified = ((summary_line(run), run.finished_at) for run in found.verified)
    print_table(("VERIFIED", "AT"), verified)
    if found.running:
        typer.echo()
        asked = ((f"{run.kind}: {progress_line(run)}", run.requested_at) for run in found.running)
        print_table(("ASKED FOR", "AT"), asked)
    typer.echo()
    print_table(("PART", "SILENT FOR"), ((each.part, _seconds(each.silent_seconds)) for each in found.parts))
    if found.workers:
        typer.echo()
        rows = ((each.worker, each.lane, each.rounds, each.changes, each.updated_at) for each in found.workers)
        print_table(("WORKER", "LANE", "ROUNDS", "INDEXED CHANGES", "LAST"), rows)
    if found.parked:
        typer.echo()
        print_table(("PARKED", "ENVIRONMENT", "VERSION", "ATTEMPTS", "SINCE", "REASON"), map(_parked, found.parked))
        total = sum(lane.parked for lane in found.waiting)
        if total > len(found.parked):
            typer.echo(f"… and {_count(total - len(found.parked))} more.")


def _generation(row: status.Generation, search: str) -> Iterable[object]:
    yield from (row.index_name, "lost" if row.lost_at else row.state, row.document_version)
    yield "as declared" if row.is_as_declared else "differs: consumers index rebuild"
    yield row.index or search
    yield None if row.aliases is None else row.aliases or "none"
    yield row.documents
    yield None if row.bytes is None else f"{row.bytes / 1_000_000:.1f} MB"
    yield from (row.position, row.misses)


def _lane(waits: outbox.Waiting, done: counters.Totals) -> Iterable[object]:
    yield from (waits.lane, _count(waits.waiting), _seconds(waits.oldest_seconds if waits.waiting else None))
    yield from (_count(waits.parked), done.changes, done.documents, done.conflicts, done.failures, done.updated_at)


def _parked(row: outbox.Parked) -> Iterable[object]:
    yield from (row.consumer_id, f"{row.organization}:{row.mode}", row.version, row.attempts, row.parked_at)
    # It quotes what somebody sent, which must not act in a terminal.
    shown = "".join(letter if letter.isprintable() else " " for letter in row.reason or "")
    yield " ".join(shown.split())[:REASON]


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.1f} s"


def _count(number: int) -> str:
    return f"{number} or more" if number >= outbox.COUNT_LIMIT else str(number)
