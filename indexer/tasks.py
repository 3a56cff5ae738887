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

from indexer import tombstones, upkeep
from indexer.drainer import Drainer
from indexer.rebuild import Builder
from indexer.worker import SETTINGS, app
from infra import db, logs, opensearch, queue, rebuilds

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
    return Drainer(db.engine(SETTINGS, name=lane), _writer(), lane)


@cache
def _writer() -> OpenSearch:
    return opensearch.writer(SETTINGS)


@cache
def _builder() -> Builder:
    # For good: what else this process does is for nobody who waits, either.
    os.nice(NICENESS)
    return Builder(SETTINGS)


@cache
def _engine() -> sa.Engine:
    return db.engine(SETTINGS, name="upkeep")


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
            answer = rebuilds.REQUESTS[name](connection, SETTINGS)
    except (rebuilds.RebuildError, DBAPIError) as error:
        reason = str(error) if isinstance(error, rebuilds.RebuildError) else logs.kind(error)
        log.warning("request_refused", request=name, reason=reason)
        return
    log.info("request_taken", request=name, index=answer.index_name, state=answer.state, phase=answer.phase)
    build.apply_async(queue=queue.REBUILD, expires=queue.EXPIRES_SECONDS)


for _name in rebuilds.REQUESTS:
    app.task(_ask, bind=True, name=f"indexer.{_name}", queue=queue.REBUILD)


@app.task(name=queue.PURGE)  # type: ignore[untyped-decorator]  # as above
def purge() -> None:
    """Remove documents of consumers that were deleted long ago."""
    try:
        purged = tombstones.purge(_engine(), _writer())
    except (OpenSearchException, DBAPIError) as error:
        log.warning("purge_postponed", reason=logs.kind(error))
        return
    if purged:
        log.info("purged", tombstones=purged)


@app.task(name=queue.UPKEEP)  # type: ignore[untyped-decorator]  # Celery ships no types
def keep_up() -> None:
    """Clear what nobody needs any more."""
    try:
        cleared = {
            "keys": upkeep.expire_keys(_engine()),
            "memberships": upkeep.clear_audiences(_engine()),
            "counters": upkeep.fold_counters(_engine()),
        }
    except DBAPIError as error:
        log.warning("upkeep_postponed", reason=type(error).__name__)
        return
    if any(cleared.values()):
        log.info("cleared", **cleared)
