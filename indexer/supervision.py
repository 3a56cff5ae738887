"""A worker that is connected and gets nothing, though its queue is not empty, ends itself, to be started again.

Celery's consumer is known to stop so after its connection to Redis was lost. Until it is replaced, the poller works.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from celery.signals import task_received
from redis import Redis
from redis.exceptions import RedisError

from infra.settings import Settings

log = structlog.get_logger()

LOOK_SECONDS = 1.0
STUCK_SECONDS = 30.0
"""Without a message while there are some. Longer than a task takes: while all processes are busy none is received."""
EXIT_CODE = 70


class Watchdog:
    """Tells when messages wait that are not received."""

    def __init__(self, waiting: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._waiting, self._clock = waiting, clock
        self._since = clock()

    def received(self, **_: Any) -> None:
        """A message came, or none had to."""
        self._since = self._clock()

    def is_stuck(self) -> bool:
        if not self._waiting():
            self.received()
        return self._clock() - self._since > STUCK_SECONDS


def has_messages(redis: Redis, queues: list[str]) -> bool:
    """Whether a queue has messages. A broker that is away has none: that is another fault, and heals by itself."""
    try:
        return any(redis.llen(name) for name in queues)
    except (RedisError, OSError):
        return False


def start(settings: Settings, queues: list[str]) -> None:
    """Watchdog this worker, which takes from these queues, in a thread of its own; it ends the process."""
    redis = Redis.from_url(settings.redis_url, socket_timeout=2, socket_connect_timeout=2)
    watch = Watchdog(lambda: has_messages(redis, queues))
    task_received.connect(watch.received, weak=False)

    def run() -> None:
        while not watch.is_stuck():
            time.sleep(LOOK_SECONDS)
        log.error("worker_stuck", seconds=STUCK_SECONDS)
        os._exit(EXIT_CODE)

    threading.Thread(target=run, name="supervision", daemon=True).start()
