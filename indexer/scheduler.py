"""Beat's scheduler."""

from typing import Any

from celery.beat import ScheduleEntry, Scheduler

from indexer.liveness import signs_of_life
from infra import settings
from infra.queue import DRAIN, TaskQueue


class SleepingScheduler(Scheduler):  # type: ignore[misc]  # Celery ships no types
    """Sends the periodic wake-ups, and sleeps between them. The schedule is kept in memory: no file is written.

    Celery's own scheduler wakes 10 ms before a task is due and loops without sleep until then: with three tasks a
    second, 3 % of a core. It also sends a task while the same task waits. A limit by time would compare the clocks of
    two machines: a worker seven seconds ahead would drop every task.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._task_queue = TaskQueue(settings.load())
        self._advance = signs_of_life.loop("scheduler")
        super().__init__(*args, **options)

    def tick(self, **options: Any) -> Any:
        """Send the tasks that are due; return the seconds until the next one."""
        self._advance()
        return super().tick(**options)

    def adjust(self, n: float | None, drift: float = 0.0) -> float | None:  # noqa: ARG002 (Celery's signature)
        """Return the seconds until the next task, unchanged."""
        return n

    def apply_async(self, entry: ScheduleEntry, producer: Any = None, advance: bool = True, **_: Any) -> None:  # noqa: ARG002, FBT001, FBT002 (Celery's signature)
        """Send the wake-up of an entry."""
        if advance:
            self.reserve(entry)
        if entry.task == DRAIN:
            self._task_queue.wake_drain()
        else:
            self._task_queue.send(entry.task)
