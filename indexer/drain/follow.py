"""Follow the lane `live`: index each change as soon as it is committed, however it was made.

A task that ends with the last change needs a message of Celery for each further change, and a change by plain SQL sends
none. So the task goes on for `FOLLOW_SECONDS`, and then sends the message for its continuation. It learns of changes in
two ways:

- The bell, a channel of Redis: the API rings it after a commit, and tells whether a client waits.
- The sequence of the outbox, which grows with each change. Its last number is read 10 to 50 times a second, which takes
  PostgreSQL a few microseconds. A transaction takes its numbers before it commits, so the outbox is looked at after a
  growth.

A single process follows the lane. The bell shows further processes that there is one; they help with a backlog only.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import psycopg
import sqlalchemy as sa
import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from indexer.drain import claims
from indexer.drain.loop import DRAIN_SECONDS, Drainer
from infra import logs, queue
from infra.database.floors import INDEX_ORDER, use_settings

log = structlog.get_logger()

FOLLOW_SECONDS = 5.0
ACTIVE_PAUSE_SECONDS, QUIET_PAUSE_SECONDS, IDLE_PAUSE_SECONDS = 0.02, 0.05, 0.1
"""Time between two looks at the sequence: within `ACTIVE_SECONDS` after it grew, within `QUIET_SECONDS`, and later. The
changes of this time share a round, unless a client waits."""
ACTIVE_SECONDS, QUIET_SECONDS = 1.0, 60.0
LOOK_SECONDS = 0.25
"""Time between two looks at the outbox while the sequence does not grow: a long transaction commits later."""
QUEUE_SECONDS = 1.0
"""Time between two looks at the queue: its other messages must not wait for the end of the task."""

# For the session, because each query is a transaction of its own. Every round makes the same settings.
KEEP_INDEX_ORDER = use_settings(INDEX_ORDER, is_local=False)
LAST_NUMBER = "SELECT pg_sequence_last_value('outbox_seq_seq')"


class Bell:
    """Listens to the bell."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        """Take a connection of its own, and the prefix of all keys."""
        self._redis, self._prefix = redis, prefix
        self._channel = redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis is partly typed

    def has_listener(self) -> bool:
        """Whether a process listens."""
        [(_, listeners)] = self._redis.pubsub_numsub(self._prefix + queue.BELL)
        return bool(listeners)

    def has_messages(self) -> bool:
        """Whether messages of Celery wait in the queue of the lane."""
        return bool(self._redis.llen(self._prefix + queue.LIVE))

    def wait(self, seconds: float) -> bool:
        """Wait for a change that a client waits for; return False after `seconds`."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._is_urgent(self._channel.get_message(timeout=left)):
                # The changes of all messages so far are committed, so the next round includes them.
                while self._channel.get_message():
                    pass
                return True
        return False

    @staticmethod
    def _is_urgent(message: dict[str, object] | None) -> bool:
        return message is not None and message["data"] == queue.NOW

    def __enter__(self) -> Self:
        self._channel.subscribe(self._prefix + queue.BELL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()


class Follower:
    """Follows the lane in a process."""

    def __init__(
        self, engine: sa.Engine, drainer: Drainer, open_bell: Callable[[], Bell], is_stopping: Callable[[], bool]
    ) -> None:
        """Take the resources of the drainer, and whether the worker is stopping."""
        self._engine, self._drainer, self._open_bell, self._is_stopping = engine, drainer, open_bell, is_stopping
        self._number: int | None = None
        self._grew_at = self._looked_at = 0.0

    def follow(self) -> bool:
        """Index changes for `FOLLOW_SECONDS`; return whether the work should be continued at once.

        Never raises: without Redis or the database the work ends, and beat sends the next message.
        """
        try:
            bell = self._open_bell()
            if bell.has_listener():
                return self._drainer.catch_up(DRAIN_SECONDS)
            with bell:
                return self._follow(bell)
        except (RedisError, SQLAlchemyError, psycopg.Error) as error:
            log.warning("follow_ended", reason=logs.error_kind(error))
            return self._drainer.catch_up(DRAIN_SECONDS)

    def _follow(self, bell: Bell) -> bool:
        now = time.monotonic()
        until, next_check = now + FOLLOW_SECONDS, now + QUEUE_SECONDS
        self._drainer.catch_up(DRAIN_SECONDS)
        while (now := time.monotonic()) < until and not self._is_stopping():
            if now >= next_check:
                if bell.has_messages():
                    break
                next_check = now + QUEUE_SECONDS
            if self._wait_for_changes(bell, min(until, next_check)):
                self._drainer.catch_up(DRAIN_SECONDS)
            if self._drainer.is_pausing:
                return False
        return not self._is_stopping()

    def _wait_for_changes(self, bell: Bell, until: float) -> bool:
        """Wait until the outbox may have changes; return False at the end of the time."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(KEEP_INDEX_ORDER)
            while time.monotonic() < until and not self._is_stopping():
                if bell.wait(self._pause()):
                    return True
                if self._may_have_changes(connection):
                    return True
        return False

    def _pause(self) -> float:
        quiet_for = time.monotonic() - self._grew_at
        if quiet_for < ACTIVE_SECONDS:
            return ACTIVE_PAUSE_SECONDS
        return QUIET_PAUSE_SECONDS if quiet_for < QUIET_SECONDS else IDLE_PAUSE_SECONDS

    def _may_have_changes(self, connection: sa.Connection) -> bool:
        # By the driver, because SQLAlchemy takes several times as long as the query.
        driver: Any = connection.connection.driver_connection
        [number], now = driver.execute(LAST_NUMBER, prepare=True).fetchone(), time.monotonic()
        if number != self._number:
            self._number, self._grew_at = number, now
        if now - self._grew_at >= ACTIVE_SECONDS and now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        return claims.has_claimable_rows(connection, queue.LIVE)
