"""End a stuck worker: messages wait, but the worker receives none. The process supervisor then starts a new worker.

Celery's consumer is known to stop receiving after a lost connection to Redis, although the worker reconnects. Until the
worker is replaced, the fallback poller drains the lane.
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

from infra import queue
from infra.redis_client import open_redis
from infra.settings import Settings

log = structlog.get_logger()

CHECK_SECONDS = 1.0
STUCK_SECONDS = 30.0
"""Time without a received message, while messages wait, until a worker counts as stuck.

The time is longer than a usual task, because a worker receives no message while every process is busy.
"""
EXIT_CODE = 70


class Watchdog:
    """Detects a stuck worker."""

    def __init__(self, has_messages: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._has_messages, self._clock = has_messages, clock
        self._idle_since = clock()

    def received(self, **_: Any) -> None:
        """Start the time again, after a message was received or while none waits. Celery's signals pass arguments."""
        self._idle_since = self._clock()

    def is_stuck(self) -> bool:
        if not self._has_messages():
            self.received()
        return self._clock() - self._idle_since > STUCK_SECONDS


def has_messages(redis: Redis, keys: list[str]) -> bool:
    """Whether any of the queues, by key, holds messages. False if Redis is unavailable: Celery reconnects by itself."""
    try:
        return any(redis.llen(key) for key in keys)
    except (RedisError, OSError):
        return False


def start(settings: Settings, queues: list[str]) -> None:
    """Start a thread to end this process if the worker, a consumer of these queues, is stuck."""
    redis = open_redis(settings, seconds=2)
    keys = [queue.key_prefix(settings) + name for name in queues]
    watchdog = Watchdog(lambda: has_messages(redis, keys))
    task_received.connect(watchdog.received, weak=False)

    def run() -> None:
        while not watchdog.is_stuck():
            time.sleep(CHECK_SECONDS)
        log.error("worker_stuck", seconds=STUCK_SECONDS)
        os._exit(EXIT_CODE)

    threading.Thread(target=run, name="supervision", daemon=True).start()
