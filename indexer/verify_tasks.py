"""Verifying and repairing, as tasks: `celery -A indexer.worker call indexer.verify`."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer import verifications
from indexer.verifications import Place
from indexer.verify import THREADS, Scope, Submit, compare
from indexer.worker import SETTINGS, app
from infra import db, opensearch, queue
from infra import verifications as asked
from infra.organizations import named_environment
from infra.verifications import Kind

TASK_SECONDS = 2.0
"""Short, for changes wait behind it; as long as there is work, beat has the next one waiting."""


@cache
def _sides() -> tuple[sa.Engine, OpenSearch]:
    return db.engine(SETTINGS, name="verify"), opensearch.writer(SETTINGS)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)


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
    verifications.work(Place(*_sides(), _submit), TASK_SECONDS)


@app.task(name=queue.WATCH)  # type: ignore[untyped-decorator]  # Celery ships no types
def watch() -> None:
    """Compare a little, as it is done all the time."""
    verifications.watch(Place(*_sides(), _submit))


def _submit(scope: Scope) -> Submit:
    return lambda part: _threads().submit(compare, *_sides(), scope, part)


def _ask(kind: Kind, environment: str | None, repairs: int | None = None) -> None:
    engine, _ = _sides()
    with engine.begin() as connection:
        number = named_environment(connection, environment) if environment else None
        asked.request(connection, kind, environment_id=number, repairs=repairs)
    go_on.apply_async(queue=queue.REBUILD)
