"""The chores: periodic work that nobody requests. Tasks of a worker, or work of beat while the worker is silent."""

import time
from collections.abc import Callable

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from indexer import stored_size, upkeep
from indexer.erasure import Erasure
from infra import logs, queue
from infra.settings import Settings

log = structlog.get_logger()

ERASE_SECONDS = 2.0
"""Longest time of an erasure: short, because the tasks of the bulk lane wait in the same worker."""
SCHEDULE = {queue.UPKEEP: 5.0, queue.WATCH: 5.0, queue.ERASE: 5.0, queue.PURGE: 30.0}
SCHEDULE |= dict.fromkeys((queue.MEASURE, queue.EXPIRE), 60.0)
"""Seconds between two starts of a chore. `WATCH` compares the next consumers of the endless verification."""


class Chores:
    """Does the chores in this process. No method raises: a chore that fails is tried again later."""

    def __init__(self, engine: sa.Engine, client: OpenSearch, redis: Redis, settings: Settings) -> None:
        """Take the resources, as `Erasure`, and the settings."""
        self._engine, self._client, self._settings = engine, client, settings
        self._erasure = Erasure(engine, client, redis, settings.index_prefix)

    def delete_expired(self) -> None:
        """Delete expired idempotency keys, memberships of deleted audiences, counters, and old changes."""
        try:
            upkeep.keep_changes(self._engine, self._settings.changes_days)
            deleted = {
                "keys": upkeep.delete_expired_keys(self._engine),
                "memberships": upkeep.clear_deleted_audiences(self._engine),
                "counters": upkeep.fold_counters(self._engine),
            }
        except DBAPIError as error:
            log.warning("upkeep_postponed", reason=type(error).__name__)
            return
        if any(deleted.values()):
            log.info("expired_rows_deleted", **deleted)

    def purge(self) -> bool:
        """Remove tombstones of consumers deleted more than a week ago, and late documents of deleted organizations.

        Returns:
            Whether more tombstones may be left than a call removes.
        """
        try:
            purged = upkeep.purge_tombstones(self._engine, self._client)
            late = self._erasure.purge_late_documents()
        except (OpenSearchException, DBAPIError) as error:
            log.warning("purge_postponed", reason=logs.error_kind(error))
            return False
        if purged:
            log.info("tombstones_purged", tombstones=purged)
        if late:
            log.warning("late_documents_purged", documents=late)
        return purged >= upkeep.TOMBSTONES

    def erase(self) -> bool:
        """Delete data of deleted organizations; return whether there is more to do at once."""
        try:
            return self._erasure.work(ERASE_SECONDS)
        except (OpenSearchException, DBAPIError, RedisError) as error:
            log.warning("erasure_postponed", reason=logs.error_kind(error))
            return False

    def measure(self) -> None:
        """Measure how much each environment stores."""
        try:
            stored_size.measure(self._engine)
        except DBAPIError as error:
            log.warning("measurement_postponed", reason=logs.error_kind(error))


class Timetable:
    """Starts each chore when due, in place of a worker."""

    def __init__(self, chores: Chores, watch: Callable[[], None], expire_exports: Callable[[], None]) -> None:
        self._chores: dict[str, Callable[[], object]] = {
            queue.UPKEEP: chores.delete_expired,
            queue.WATCH: watch,
            queue.ERASE: chores.erase,
            queue.PURGE: chores.purge,
            queue.MEASURE: chores.measure,
            queue.EXPIRE: expire_exports,
        }
        self._due: dict[str, float] = {}

    def work(self) -> None:
        """Do the chores that are due."""
        for name, chore in self._chores.items():
            if time.monotonic() >= self._due.get(name, 0.0):
                self._due[name] = time.monotonic() + SCHEDULE[name]
                chore()
