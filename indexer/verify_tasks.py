"""Verifying and repairing, as tasks: `celery -A indexer.worker call indexer.verify`."""

from functools import cache

from indexer import verifications
from indexer.verifications import Place
from indexer.worker import SETTINGS, app
from infra import queue
from infra import verifications as asked
from infra.organizations import named_environment
from infra.verifications import Kind

TASK_SECONDS = 2.0
"""Short, for changes wait behind it; as long as there is work, beat has the next one waiting."""


@cache
def _place() -> Place:
    return verifications.place_of(SETTINGS)


@app.task(name=queue.VERIFY)  # type: ignore[untyped-decorator]  # Celery ships no types
def verify(environment: str | None = None) -> None:
    """Ask for a verification of everything, or of one environment, such as `shop:live`."""
    _ask("verify", environment)


@app.task(name=queue.REPAIR)  # type: ignore[untyped-decorator]  # Celery ships no types
def repair(environment: str | None = None, run: int | None = None) -> None:
    """Ask for a repair of what differs, or of what a run found."""
    _ask("repair", environment, run)


@app.task(name=queue.COMPARE)  # type: ignore[untyped-decorator]  # Celery ships no types
def go_on() -> None:
    """Go on with what was asked for."""
    verifications.work(_place(), TASK_SECONDS)


@app.task(name=queue.WATCH)  # type: ignore[untyped-decorator]  # Celery ships no types
def watch() -> None:
    """Compare a little, as it is done all the time."""
    verifications.watch(_place())


def _ask(kind: Kind, environment: str | None, repairs: int | None = None) -> None:
    with _place().engine.begin() as connection:
        number = named_environment(connection, environment) if environment else None
        asked.request(connection, kind, environment_id=number, repairs=repairs)
    go_on.apply_async(queue=queue.REBUILD)
