"""The drain that needs no queue: where the worker is silent, whatever the reason, the clock's process does its work."""

import threading
import time

import sqlalchemy as sa
import structlog
from redis import Redis
from redis.exceptions import RedisError

from indexer.drain.loop import Drainer
from indexer.rebuild.builder import Builder
from indexer.verify import runs
from infra import logs, queue
from infra.database import activity
from infra.database.engine import open_engine
from infra.index.client import open_writer
from infra.settings import Settings

log = structlog.get_logger()

POLL_SECONDS = 1.0
SILENT_SECONDS = 4.0
"""The worker looks for changes each second, or each second one while the index is away."""
TURN_SECONDS = 1.0
"""A lane is drained so long at a time, so that neither waits for the other."""


class Poller:
    """Drains the lanes that nobody else does."""

    def __init__(self, settings: Settings) -> None:
        self._engine = open_engine(settings, name="clock")
        client = open_writer(settings)
        self._drainers = {lane: Drainer(self._engine, client, lane) for lane in (queue.LIVE, queue.BULK)}
        self._redis = Redis.from_url(settings.redis_url, socket_timeout=1, socket_connect_timeout=1)
        self._silent: set[str] = set()

    def run(self) -> None:
        """Poll for ever."""
        while True:
            if not self.poll():
                time.sleep(POLL_SECONDS)

    def poll(self) -> bool:
        """Look once; tell whether there is more to do at once."""
        try:
            with self._engine.connect() as connection:
                silent = {lane for lane in self._drainers if _is_silent(connection, lane)}
        except sa.exc.DBAPIError as error:
            log.warning("poll_postponed", reason=logs.error_kind(error))
            return False
        for lane in silent ^ self._silent:
            log.warning("worker_silent" if lane in silent else "worker_heard", lane=lane)
        self._silent = silent
        if silent:
            self._heal_queue()
        more = [self._drainers[lane].catch_up(TURN_SECONDS) for lane in silent]
        return any(more)

    def _heal_queue(self) -> None:
        try:
            if wrong := queue.delete_wrongly_typed_keys(self._redis):
                log.error("queue_healed", keys=wrong)
        except RedisError:
            pass  # it is away, which is why nobody is heard


def _is_silent(connection: sa.Connection, lane: str) -> bool:
    seconds = activity.seconds_since_query(connection, lane)
    return seconds is None or seconds > SILENT_SECONDS


def build(settings: Settings) -> None:
    """Go on for ever with rebuilds and with what is to be compared, where no worker is heard that would.

    An index may be lost while Redis is away.
    """
    engine, builder, place = open_engine(settings, name="reconcile"), Builder(settings), runs.place_of(settings)
    while True:
        try:
            with engine.connect() as connection:
                silent = _is_silent(connection, queue.BULK)
        except sa.exc.DBAPIError:
            silent = False
        if not silent or not any([builder.work(TURN_SECONDS), runs.work(place, TURN_SECONDS)]):
            time.sleep(POLL_SECONDS)


def start(settings: Settings) -> None:
    """Poll until the process ends: one thread for the lanes, and one for what takes long."""
    threading.Thread(target=Poller(settings).run, name="poller", daemon=True).start()
    threading.Thread(target=build, args=[settings], name="builder", daemon=True).start()
