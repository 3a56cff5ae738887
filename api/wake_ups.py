"""Wake-ups of the indexer, sent by requests after the commit."""

import threading
from typing import Protocol

import structlog

from infra.queue import TaskQueue

log = structlog.get_logger()

PAUSE_SECONDS = 0.08
"""Time between two wake-ups: the changes in between share the next wake-up, and a single refresh of the index."""


class WakeUp(Protocol):
    """Wakes the indexer up; `now` if a client waits for the change to be searchable."""

    def __call__(self, *, now: bool = False) -> None: ...


class WakeUpSender:
    """Sends wake-ups from a thread, so no request waits for Redis. Wake-ups in quick succession are combined."""

    def __init__(self, task_queue: TaskQueue) -> None:
        self._task_queue = task_queue
        self._wanted, self._urgent = threading.Event(), threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="wake-ups", daemon=True)
        self._thread.start()

    def send(self, *, now: bool = False) -> None:
        """Have a wake-up sent: after the pause, or at once if `now`."""
        if now:
            self._urgent.set()
        self._wanted.set()

    def close(self) -> None:
        self._closed = True
        self.send(now=True)
        self._thread.join(timeout=1)
        self._task_queue.close()

    def _run(self) -> None:
        is_reachable = True
        while self._wanted.wait() and not self._closed:
            is_urgent = self._urgent.is_set()
            self._urgent.clear()
            self._wanted.clear()
            if (was_sent := self._task_queue.wake_drain(now=is_urgent)) != is_reachable:
                is_reachable = was_sent
                log.warning("queue_recovered" if is_reachable else "queue_unreachable")
            self._urgent.wait(PAUSE_SECONDS)
