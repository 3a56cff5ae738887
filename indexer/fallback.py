"""Work without a queue: while a worker is silent, for any reason, or does not reach OpenSearch, beat's process works in
its place.
"""

import threading
import time

import sqlalchemy as sa
import structlog
from redis.exceptions import RedisError

from indexer.chores import Chores, Timetable
from indexer.drain.loop import Drainer
from indexer.exports.exporter import Exporter
from indexer.liveness import signs_of_life
from indexer.rebuild.builder import Builder
from indexer.verify.runs import Runner
from infra import logs, queue
from infra.database import activity
from infra.database.engine import open_engine
from infra.index.client import open_writer
from infra.redis_client import open_redis
from infra.settings import Settings

log = structlog.get_logger()

POLL_SECONDS = 1.0
SILENT_SECONDS = {queue.LIVE: 4.0, queue.BULK: 10.0}
"""A worker without a query for this time is silent: several `activity.PERIODIC_DRAIN_SECONDS`."""
TURN_SECONDS = 1.0
"""Longest time for a lane before the next lane gets a turn."""


class Poller:
    """Drains each lane without an active worker."""

    def __init__(self, settings: Settings) -> None:
        self._engine = open_engine(settings, name="clock")
        client = open_writer(settings)
        self._drainers = {lane: Drainer(self._engine, client, lane) for lane in (queue.LIVE, queue.BULK)}
        self._settings, self._redis = settings, open_redis(settings, seconds=1)
        self._silent: set[str] = set()

    def run(self) -> None:
        """Poll forever."""
        advance = signs_of_life.loop("poller")
        while True:
            advance()
            if not self.poll():
                time.sleep(POLL_SECONDS)

    def poll(self) -> bool:
        """Drain the lanes without an active worker once; return whether more rows may wait."""
        try:
            with self._engine.connect() as connection:
                silent = {lane for lane in self._drainers if _is_silent(connection, lane)}
        except sa.exc.DBAPIError as error:
            log.warning("poll_postponed", reason=logs.error_kind(error))
            return False
        for lane in silent ^ self._silent:
            log.warning("worker_silent" if lane in silent else "worker_recovered", lane=lane)
        self._silent = silent
        if silent:
            self._check_queue_keys()
        unfinished = [self._drainers[lane].catch_up(TURN_SECONDS) for lane in silent]
        return any(unfinished)

    def _check_queue_keys(self) -> None:
        try:
            if deleted := queue.delete_wrongly_typed_keys(self._redis, queue.key_prefix(self._settings)):
                log.error("queue_keys_deleted", keys=deleted)
        except RedisError:
            pass  # Redis is unavailable: the probable reason of the silence


def _is_silent(connection: sa.Connection, lane: str) -> bool:
    seconds = activity.seconds_since_query(connection, lane, unless_cut_off=True)
    return seconds is None or seconds > SILENT_SECONDS[lane]


class Substitute:
    """Does all further work of the bulk lane's worker while it is silent: rebuilds, runs, and the chores.

    None of it may depend on Redis: an index may be lost while Redis is unavailable, and expired rows must go.
    """

    def __init__(self, settings: Settings) -> None:
        self._engine = open_engine(settings, name="reconcile")
        self._builder, self._runner = Builder(settings), Runner.open(settings)
        chores = Chores(self._engine, open_writer(settings), open_redis(settings, seconds=1), settings)
        self._timetable = Timetable(chores, self._runner.watch, Exporter(settings).expire)

    def run(self) -> None:
        """Look forever."""
        advance = signs_of_life.loop("substitute", queue.BUILD_LIMIT_SECONDS)
        while True:
            advance()
            if not self.poll():
                time.sleep(POLL_SECONDS)

    def poll(self) -> bool:
        """Work once if the worker is silent; return whether there may be more to do at once."""
        try:
            with self._engine.connect() as connection:
                if not _is_silent(connection, queue.BULK):
                    return False
        except sa.exc.DBAPIError:
            return False
        self._timetable.work()
        return any([self._builder.work(TURN_SECONDS), self._runner.work(TURN_SECONDS)])


def start(settings: Settings) -> None:
    """Start a thread to drain the lanes and a thread for all further work, until the process ends."""
    threading.Thread(target=Poller(settings).run, name="poller", daemon=True).start()
    threading.Thread(target=Substitute(settings).run, name="substitute", daemon=True).start()
