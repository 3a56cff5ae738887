"""What the worker does. Tasks carry no data: they look into the database for what there is to do."""

import os
from functools import cache

import sqlalchemy as sa
import structlog
from celery import Task
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from indexer import upkeep
from indexer.drain.loop import Drainer
from indexer.rebuild.builder import Builder
from indexer.verify import reindex as again
from indexer.verify import runs
from indexer.verify.runs import Place
from indexer.worker import SETTINGS, app
from infra import logs, queue
from infra.accounts.organizations import OrganizationError, named_environment
from infra.database.engine import open_engine
from infra.fields import timestamp
from infra.index.client import open_writer
from infra.operations import rebuild
from infra.operations.reindex import ReindexError, ReindexRequest, check_request, request_reindex
from infra.operations.verify import RunKind, VerificationError, request_run

log = structlog.get_logger()

TASK_SECONDS = 10.0
"""A task ends after this long even if there is more to do; the next one goes on."""
BUILD_SECONDS = 3.0
"""The same; the bulk lane shares the worker."""
NICENESS = 10
"""Of a process that builds: searches and live changes go first where the machine is short of processors."""


@cache
def _drainer(lane: str) -> Drainer:
    # Each process that drains is seen by its name in the database (`infra.activity`).
    return Drainer(open_engine(SETTINGS, name=lane), _writer(), lane)


@cache
def _writer() -> OpenSearch:
    return open_writer(SETTINGS)


@cache
def _builder() -> Builder:
    # For good: what else this process does is for nobody who waits, either.
    os.nice(NICENESS)
    return Builder(SETTINGS)


@cache
def _engine() -> sa.Engine:
    return open_engine(SETTINGS, name="upkeep")


@cache
def _redis() -> Redis:
    return Redis.from_url(SETTINGS.redis_url, socket_timeout=1, socket_connect_timeout=1)


@app.task(name=queue.DRAIN)  # type: ignore[untyped-decorator]  # Celery ships no types
def drain() -> None:
    """Bring the index up to the database."""
    try:
        # First of all: a change that still finds the mark is then seen by the claim that follows.
        _redis().delete(queue.MARK)
    except RedisError as error:
        log.warning("queue_unreachable", reason=type(error).__name__)
    _drainer(queue.LIVE).catch_up(TASK_SECONDS)


@app.task(name=queue.DRAIN_BULK)  # type: ignore[untyped-decorator]  # Celery ships no types
def drain_bulk() -> None:
    """Index what nobody waits for: imports, repairs, the members of deleted audiences."""
    _drainer(queue.BULK).catch_up(TASK_SECONDS)


@app.task(name=queue.BUILD, time_limit=queue.BUILD_LIMIT_SECONDS)  # type: ignore[untyped-decorator]  # as above
def build() -> None:
    """Go on with a rebuild, or with whatever else is to be done with generations."""
    if _builder().work(BUILD_SECONDS):
        # As many go on as there are workers; messages beyond that expire.
        build.apply_async(queue=queue.REBUILD, expires=queue.EXPIRES_SECONDS)


def _ask(task: Task) -> None:
    name = task.name.removeprefix("indexer.")
    try:
        with _engine().begin() as connection:
            answer = rebuild.REQUESTS[name](connection, SETTINGS)
    except (rebuild.RebuildError, DBAPIError) as error:
        reason = str(error) if isinstance(error, rebuild.RebuildError) else logs.error_kind(error)
        log.warning("request_refused", request=name, reason=reason)
        return
    log.info("request_taken", request=name, index=answer.index_name, state=answer.state, phase=answer.phase)
    build.apply_async(queue=queue.REBUILD, expires=queue.EXPIRES_SECONDS)


for _name in rebuild.REQUESTS:
    app.task(_ask, bind=True, name=f"indexer.{_name}", queue=queue.REBUILD)


@app.task(name=queue.PURGE)  # type: ignore[untyped-decorator]  # as above
def purge() -> None:
    """Remove documents of consumers that were deleted long ago."""
    try:
        purged = upkeep.purge_tombstones(_engine(), _writer())
    except (OpenSearchException, DBAPIError) as error:
        log.warning("purge_postponed", reason=logs.error_kind(error))
        return
    if purged:
        log.info("purged", tombstones=purged)


@app.task(name=queue.UPKEEP)  # type: ignore[untyped-decorator]  # Celery ships no types
def keep_up() -> None:
    """Clear what nobody needs any more."""
    try:
        cleared = {
            "keys": upkeep.delete_expired_keys(_engine()),
            "memberships": upkeep.clear_deleted_audiences(_engine()),
            "counters": upkeep.fold_counters(_engine()),
        }
    except DBAPIError as error:
        log.warning("upkeep_postponed", reason=type(error).__name__)
        return
    if any(cleared.values()):
        log.info("cleared", **cleared)


RUN_SECONDS = 2.0
"""Short, for changes wait behind it; as long as there is work, each asks for the next one."""


@cache
def _place() -> Place:
    return runs.place_of(SETTINGS)


@app.task(name=queue.VERIFY)  # type: ignore[untyped-decorator]  # Celery ships no types
def verify(environment: str | None = None) -> None:
    """Ask for a verification of everything, or of one environment, such as `shop:live`."""
    _request_run("verify", environment)


@app.task(name=queue.REPAIR)  # type: ignore[untyped-decorator]  # Celery ships no types
def repair(environment: str | None = None, run: int | None = None) -> None:
    """Ask for a repair of what differs, or of what a run found."""
    _request_run("repair", environment, run)


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
            request = ReindexRequest(
                ids=ids,
                environment=environment,
                filter=filter,
                updated_since=timestamp(updated_since) if updated_since else None,
                failed_since=timestamp(failed_since) if failed_since else None,
            )
            scope = check_request(connection, request)
            if dry_run:
                log.info("reindex_counted", consumers=again.total(connection, place.client, place.alias, scope))
                return
            run_id = request_reindex(connection, scope)
    except (ReindexError, ValueError) as error:
        log.warning("request_refused", request="reindex", reason=str(error))
        return
    log.info("request_taken", request="reindex", run=run_id)
    go_on.apply_async(queue=queue.REBUILD)


@app.task(name=queue.COMPARE)  # type: ignore[untyped-decorator]  # Celery ships no types
def go_on() -> None:
    """Go on with what was asked for."""
    if runs.work(_place(), RUN_SECONDS):
        go_on.apply_async(queue=queue.REBUILD, expires=queue.EXPIRES_SECONDS)


@app.task(name=queue.WATCH)  # type: ignore[untyped-decorator]  # Celery ships no types
def watch() -> None:
    """Compare a little, as it is done all the time."""
    runs.watch(_place())


def _request_run(kind: RunKind, environment: str | None, repairs: int | None = None) -> None:
    try:
        with _place().engine.begin() as connection:
            number = named_environment(connection, environment) if environment is not None else None
            run = request_run(connection, kind, environment_id=number, repairs=repairs)
    except (OrganizationError, VerificationError) as error:
        log.warning("request_refused", request=kind, reason=str(error))
        return
    log.info("request_taken", request=kind, run=run)
    go_on.apply_async(queue=queue.REBUILD)
