"""The indexer's Celery tasks: drain, rebuild, verify and reindex, exports, upkeep.

Most tasks are wake-ups without data: the task looks for work in the database, so any wake-up may be lost, repeated or
late. A request, such as `indexer.rebuild`, becomes a row in the database, and wake-ups follow. The names of the tasks
are a contract between releases and with operators (`celery call`), so the names never change.
"""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import sqlalchemy as sa
import structlog
from celery import Task
from celery.signals import task_prerun
from opensearchpy import OpenSearch
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from indexer.chores import Chores
from indexer.drain.follow import Bell, Follower
from indexer.drain.loop import DRAIN_SECONDS, Drainer
from indexer.exports.exporter import Exporter
from indexer.rebuild.builder import Builder
from indexer.stopping import is_stopping
from indexer.verify.reindex import count_chosen
from indexer.verify.runs import Runner
from indexer.worker import SETTINGS, app
from infra import logs, queue
from infra.accounts.organizations import OrganizationError, named_environment
from infra.database.engine import open_engine
from infra.fields import timestamp
from infra.index.client import open_writer
from infra.operations import outbox, rebuild
from infra.operations.reindex import ReindexError, ReindexRequest, check_request, request_reindex
from infra.operations.verify import RunKind, VerificationError, request_run
from infra.redis_client import open_redis

log = structlog.get_logger()

BUILD_SECONDS = 3.0
"""Longest time a build task works: short, because the tasks of the bulk lane wait in the same worker."""
RUN_SECONDS = 2.0
"""Longest time a run task works: short, because changes wait behind it."""
BUILD_NICENESS = 10
"""Niceness of a building process: searches and live changes get the processor first."""


# Connections, opened once in each process


@cache
def _drainer(lane: str) -> Drainer:
    # The lane names the session, so other processes can see the activity of the lane (infra/database/activity.py).
    announce = _task_queue().announce_round
    assistant = Drainer(open_engine(SETTINGS, name=f"{lane}-assistant"), open_writer(SETTINGS), lane, announce=announce)
    return Drainer(_lane_engine(lane), _writer(), lane, part=lane, assistant=assistant, announce=announce)


@cache
def _lane_engine(lane: str) -> sa.Engine:
    return open_engine(SETTINGS, name=lane)


@cache
def _follower() -> Follower:
    # Without repetitions: a change must not wait for them.
    redis = open_redis(SETTINGS, seconds=1, retry=None)

    def open_bell() -> Bell:
        return Bell(redis, queue.key_prefix(SETTINGS))

    return Follower(_lane_engine(queue.LIVE), _drainer(queue.LIVE), open_bell, is_stopping)


@cache
def _writer() -> OpenSearch:
    return open_writer(SETTINGS)


@cache
def _redis() -> Redis:
    return open_redis(SETTINGS, seconds=1)


@cache
def _task_queue() -> queue.TaskQueue:
    return queue.TaskQueue(SETTINGS)


@cache
def _builder() -> Builder:
    # The process keeps this niceness: its other tasks (bulk lane, runs, upkeep) are not urgent either.
    os.nice(BUILD_NICENESS)
    return Builder(SETTINGS)


@cache
def _runner() -> Runner:
    return Runner.open(SETTINGS)


@cache
def _exporter() -> Exporter:
    return Exporter(SETTINGS)


@cache
def _chores() -> Chores:
    return Chores(_engine(), _writer(), _redis(), SETTINGS)


@cache
def _engine() -> sa.Engine:
    return open_engine(SETTINGS, name="upkeep")


@task_prerun.connect  # type: ignore[untyped-decorator]  # Celery ships no types
def _delete_mark(task: Task, **_: Any) -> None:
    """Before a task works: later changes find no mark and send a wake-up, the task includes the earlier changes."""
    if task.name in queue.QUEUES:
        try:
            _redis().delete(queue.key_prefix(SETTINGS) + queue.mark(task.name))
        except RedisError as error:
            log.warning("queue_unreachable", reason=type(error).__name__)


# Drain


@app.task(name=queue.DRAIN)  # type: ignore[untyped-decorator]  # Celery ships no types
def drain() -> None:
    """Index the changes of the live lane, and follow the lane; send the next wake-up while there may be changes."""
    if _follower().follow():
        _task_queue().send(queue.DRAIN, waiting=1)


@app.task(name=queue.DRAIN_BULK)  # type: ignore[untyped-decorator]  # Celery ships no types
def drain_bulk() -> None:
    """Index the changes of the bulk lane: imports, repairs, members of deleted audiences."""
    _drainer(queue.BULK).catch_up(DRAIN_SECONDS)


@app.task(name=queue.RETRY_PARKED)  # type: ignore[untyped-decorator]  # Celery ships no types
def retry_parked(environment: str | None = None, ids: list[str] | None = None) -> None:
    """Return all parked changes to the drain, or those of an environment or of consumers; the log has the number."""
    try:
        with _engine().begin() as connection:
            environment_id = named_environment(connection, environment) if environment is not None else None
            retried = outbox.retry(connection, environment_id=environment_id, ids=ids)
    except OrganizationError as error:
        log.warning("request_refused", request="retry_parked", reason=str(error))
        return
    log.info("request_accepted", request="retry_parked", retried=retried)
    _task_queue().send(queue.DRAIN)


# Rebuild


@app.task(name=queue.BUILD, time_limit=queue.BUILD_LIMIT_SECONDS)  # type: ignore[untyped-decorator]  # Celery ships no types
def build() -> None:
    """Continue a rebuild, a rollback, or the removal of an index."""
    if _builder().work(BUILD_SECONDS):
        # Every worker process may continue at the same time: a wake-up waits for the next free process.
        _task_queue().send(queue.BUILD)


def _request_task(request: rebuild.Request) -> Callable[[], None]:
    """Return the task that makes a request for a rebuild; the log has the result."""

    def run() -> None:
        try:
            with _engine().begin() as connection:
                accepted = rebuild.REQUESTS[request](connection, SETTINGS)
        except (rebuild.RebuildError, DBAPIError) as error:
            reason = str(error) if isinstance(error, rebuild.RebuildError) else logs.error_kind(error)
            log.warning("request_refused", request=request, reason=reason)
            return
        log.info(
            "request_accepted", request=request, index=accepted.index_name, state=accepted.state, phase=accepted.phase
        )
        _task_queue().send(queue.BUILD)

    return run


for _request in rebuild.REQUESTS:
    app.task(_request_task(_request), name=f"indexer.{_request}", queue=queue.REBUILD)


# Verify, repair, reindex


@app.task(name=queue.VERIFY)  # type: ignore[untyped-decorator]  # Celery ships no types
def verify(environment: str | None = None) -> None:
    """Request a verification of all consumers, or of an environment such as `shop:live`."""
    _request_run("verify", environment)


@app.task(name=queue.REPAIR)  # type: ignore[untyped-decorator]  # Celery ships no types
def repair(environment: str | None = None, run: int | None = None) -> None:
    """Request a repair of all differences, or of the differences in an environment or of a run."""
    _request_run("repair", environment, run)


@app.task(name=queue.REINDEX)  # type: ignore[untyped-decorator]  # Celery ships no types
def reindex(
    *,
    ids: list[str] | None = None,
    environment: str | None = None,
    filter: str | None = None,  # noqa: A002 (the task's parameter as operators write it)
    updated_since: str | None = None,
    failed_since: str | None = None,
    dry_run: bool = False,
) -> None:
    """Request a rewrite of the consumers for which all conditions hold. A dry run only logs the number of consumers."""
    runner = _runner()
    try:
        with runner.engine.begin() as connection:
            request = ReindexRequest(
                ids=ids,
                environment=environment,
                filter=filter,
                updated_since=timestamp(updated_since) if updated_since else None,
                failed_since=timestamp(failed_since) if failed_since else None,
            )
            scope = check_request(connection, request)
            if dry_run:
                total = count_chosen(connection, runner.client, runner.alias, scope)
                log.info("reindex_counted", consumers=total)
                return
            run = request_reindex(connection, scope)
    except (ReindexError, ValueError) as error:
        # The message about a filter may quote the filter, which may hold personal data.
        is_filter = isinstance(error, ReindexError) and error.field == "filter"
        log.warning("request_refused", request="reindex", reason="the filter is invalid" if is_filter else str(error))
        return
    log.info("request_accepted", request="reindex", run=run)
    _task_queue().send(queue.COMPARE)


def _request_run(kind: RunKind, environment: str | None, repairs: int | None = None) -> None:
    try:
        with _runner().engine.begin() as connection:
            environment_id = named_environment(connection, environment) if environment is not None else None
            run = request_run(connection, kind, environment_id=environment_id, repairs=repairs)
    except (OrganizationError, VerificationError) as error:
        log.warning("request_refused", request=kind, reason=str(error))
        return
    log.info("request_accepted", request=kind, run=run)
    _task_queue().send(queue.COMPARE)


@app.task(name=queue.COMPARE)  # type: ignore[untyped-decorator]  # Celery ships no types
def continue_run() -> None:
    """Continue a requested run; send the next wake-up while there is work."""
    if _runner().work(RUN_SECONDS):
        _task_queue().send(queue.COMPARE)


@app.task(name=queue.WATCH)  # type: ignore[untyped-decorator]  # Celery ships no types
def watch() -> None:
    """Compare the next consumers of the watch, the endless verification."""
    _runner().watch()


# Exports


@app.task(name=queue.EXPORT)  # type: ignore[untyped-decorator]  # Celery ships no types
def export() -> None:
    """Start the next export in a process of its own, unless one runs on this machine."""
    _exporter().work()


@app.task(name=queue.EXPIRE)  # type: ignore[untyped-decorator]  # Celery ships no types
def expire_exports() -> None:
    """Delete the files of expired exports, and files without an export."""
    _exporter().expire()


# Upkeep


@app.task(name=queue.PURGE)  # type: ignore[untyped-decorator]  # Celery ships no types
def purge() -> None:
    """Remove old tombstones; send the next wake-up while more are left than a call removes."""
    if _chores().purge():
        _task_queue().send(queue.PURGE)


@app.task(name=queue.ERASE)  # type: ignore[untyped-decorator]  # Celery ships no types
def erase() -> None:
    """Delete data of deleted organizations; send the next wake-up while there is work."""
    if _chores().erase():
        _task_queue().send(queue.ERASE)


@app.task(name=queue.MEASURE)  # type: ignore[untyped-decorator]  # Celery ships no types
def measure() -> None:
    """Measure how much each environment stores."""
    _chores().measure()


@app.task(name=queue.UPKEEP)  # type: ignore[untyped-decorator]  # Celery ships no types
def delete_expired() -> None:
    """Delete expired idempotency keys, memberships of deleted audiences, and counters of ended sessions."""
    _chores().delete_expired()
