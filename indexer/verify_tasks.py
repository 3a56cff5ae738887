"""Verifying, repairing and reindexing, as tasks: `celery -A indexer.worker call indexer.verify`."""

from functools import cache

import structlog

from indexer import reindex as again
from indexer import verifications
from indexer.verifications import Place
from indexer.worker import SETTINGS, app
from infra import queue, reindex
from infra import verifications as asked
from infra.fields import timestamp
from infra.organizations import OrganizationError, named_environment
from infra.reindex import ReindexError
from infra.verifications import Kind, VerificationError

log = structlog.get_logger()

TASK_SECONDS = 2.0
"""Short, for changes wait behind it; as long as there is work, each asks for the next one."""


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


@app.task(name=queue.REINDEX)  # type: ignore[untyped-decorator]  # Celery ships no types
def write_again(
    *,
    ids: list[str] | None = None,
    environment: str | None = None,
    filter: str | None = None,  # noqa: A002 (as people write it)
    updated_since: str | None = None,
    failed_since: str | None = None,
    dry_run: bool = False,
) -> None:
    """Ask for some consumers to be written again; all that is given must hold. A dry run's count is in the log."""
    place = _place()
    try:
        with place.engine.begin() as connection:
            asked = reindex.Asked(
                ids=ids,
                environment=environment,
                filter=filter,
                updated_since=timestamp(updated_since) if updated_since else None,
                failed_since=timestamp(failed_since) if failed_since else None,
            )
            scope = reindex.scope(connection, asked)
            if dry_run:
                log.info("reindex_counted", consumers=again.total(connection, place.client, place.alias, scope))
                return
            number = reindex.request(connection, scope)
    except (ReindexError, ValueError) as error:
        log.warning("request_refused", request="reindex", reason=str(error))
        return
    log.info("request_taken", request="reindex", run=number)
    go_on.apply_async(queue=queue.REBUILD)


@app.task(name=queue.COMPARE)  # type: ignore[untyped-decorator]  # Celery ships no types
def go_on() -> None:
    """Go on with what was asked for."""
    if verifications.work(_place(), TASK_SECONDS):
        go_on.apply_async(queue=queue.REBUILD, expires=queue.EXPIRES_SECONDS)


@app.task(name=queue.WATCH)  # type: ignore[untyped-decorator]  # Celery ships no types
def watch() -> None:
    """Compare a little, as it is done all the time."""
    verifications.watch(_place())


def _ask(kind: Kind, environment: str | None, repairs: int | None = None) -> None:
    try:
        with _place().engine.begin() as connection:
            number = named_environment(connection, environment) if environment is not None else None
            run = asked.request(connection, kind, environment_id=number, repairs=repairs)
    except (OrganizationError, VerificationError) as error:
        log.warning("request_refused", request=kind, reason=str(error))
        return
    log.info("request_taken", request=kind, run=run)
    go_on.apply_async(queue=queue.REBUILD)
