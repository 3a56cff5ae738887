"""What the worker does. Tasks carry no data: they look into the database for what there is to do."""

import time
from functools import cache

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from indexer import claims, upkeep
from indexer.drain import PlaceError, Round, drain_round
from indexer.worker import SETTINGS, app
from infra import db, logs, opensearch, queue

log = structlog.get_logger()

FULL = claims.ROWS // 4
"""Rows of a round after which there may be more."""
TASK_SECONDS = 20.0
"""A task ends after this long even if there is more to do; the next one goes on."""


@cache
def _engine() -> sa.Engine:
    return db.engine(SETTINGS)


@cache
def _client() -> OpenSearch:
    return opensearch.writer(SETTINGS)


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
    started = time.monotonic()
    done = Round(rows=FULL)
    try:
        # A round that took all there was is the last: what came meanwhile sent a wake-up of its own, and waits for it
        # together with what comes next. A round a change would refresh the index for each.
        while done.rows >= FULL and time.monotonic() - started < TASK_SECONDS:
            with _engine().connect() as connection:
                done = drain_round(connection, _client())
            if done.rows:
                log.info("drained", **done._asdict())
    except (PlaceError, OpenSearchException, DBAPIError) as error:
        # Nothing is lost: the rows are in the outbox, and beat calls again within a second.
        log.warning("drain_postponed", reason=str(error) if isinstance(error, PlaceError) else logs.kind(error))


@app.task(name=queue.UPKEEP)  # type: ignore[untyped-decorator]  # Celery ships no types
def keep_up() -> None:
    """Clear what nobody needs any more."""
    try:
        cleared = {"keys": upkeep.expire_keys(_engine()), "memberships": upkeep.clear_audiences(_engine())}
    except DBAPIError as error:
        log.warning("upkeep_postponed", reason=type(error).__name__)
        return
    if any(cleared.values()):
        log.info("cleared", **cleared)
