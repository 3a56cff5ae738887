"""The liveness file of a worker or beat (LIVENESS_FILE): touched each second while all its processes and loops advance.

A probe compares the age of the file with 10 seconds (docs/deploying.md), and needs no Python. The file gets old if

- the process is frozen;
- a pool process of the worker is frozen, or works on a task for longer than its time limit, although Celery ends such a
  process;
- a loop of beat has ended, or does not advance.

The file does not depend on the three servers, because a restart does not help while a server is away.
"""

import mmap
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from billiard.process import current_process  # type: ignore[import-untyped]  # ships no types
from celery import Task, bootsteps
from celery.signals import task_postrun, task_prerun, worker_process_init

from infra.queue import TASK_LIMIT_SECONDS

log = structlog.get_logger()

TOUCH_SECONDS = 1.0
PULSE_SECONDS = 3.0
"""A pool process without a sign of life for so long counts as frozen."""
LOOP_SECONDS = 120.0
"""A loop that does not advance for so long hangs: longer than the time-outs of a round together."""
MARGIN_SECONDS = 30.0
"""How much longer than its time limit a task may take: Celery ends its process first."""

_PULSE = struct.Struct("d")
_MAX_PROCESSES = mmap.PAGESIZE // _PULSE.size


class Liveness:
    """The signs of life of a process and its pool processes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without loops and pool processes. The clock must be the same in all processes."""
        self._clock = clock
        self._loops: dict[str, tuple[float, float]] = {}
        # Shared with the forked pool processes: by number of the process, the time of its last pulse.
        self._pulses = mmap.mmap(-1, mmap.PAGESIZE)

    def loop(self, name: str, seconds: float = LOOP_SECONDS) -> Callable[[], None]:
        """Register a loop of this process; return a function to call in each of its rounds.

        Args:
            name: of the loop.
            seconds: longest time of a round.
        """

        def advance() -> None:
            self._loops[name] = (self._clock(), seconds)

        advance()
        return advance

    def pulse(self, process: int) -> None:
        """Note a sign of life of a pool process."""
        _PULSE.pack_into(self._pulses, process % _MAX_PROCESSES * _PULSE.size, self._clock())

    def faults(self) -> list[str]:
        """Return the loops and pool processes that do not advance."""
        now = self._clock()
        loops = [name for name, (advanced_at, seconds) in list(self._loops.items()) if now - advanced_at > seconds]
        pulses = [pulse for (pulse,) in _PULSE.iter_unpack(self._pulses[:])]
        frozen = [number for number, pulse in enumerate(pulses) if pulse and now - pulse > PULSE_SECONDS]
        return loops + [f"process {number}" for number in frozen]


signs_of_life = Liveness()


def start(file: str | None) -> None:
    """Start a thread that touches the file while nothing is at fault."""
    if file:
        threading.Thread(target=_touch_regularly, args=[Path(file)], name="liveness", daemon=True).start()


def touch(file: str | None) -> None:
    """Touch the file, during a start that waits for the database."""
    if file:
        try:
            Path(file).touch()
        except OSError as error:
            log.error("liveness_file_not_touched", reason=type(error).__name__)  # noqa: TRY400 (the name says enough)


def _touch_regularly(file: Path) -> None:
    while True:
        if faults := signs_of_life.faults():
            log.warning("liveness_lost", parts=faults)
        else:
            touch(str(file))
        time.sleep(TOUCH_SECONDS)


def watch_pool(app: Any, file: str | None) -> None:
    """Have workers of a Celery application touch the file while all their pool processes advance."""

    class Step(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
        # After the pool, because a forked process should begin with a single thread, and before the broker is reached.
        requires = ("celery.worker.components:Pool",)

        def start(self, _: Any) -> None:
            start(file)

    app.steps["worker"].add(Step)
    pulse = _Pulse()
    task_prerun.connect(pulse.begin_task, weak=False)
    task_postrun.connect(pulse.end_task, weak=False)
    worker_process_init.connect(pulse.start, weak=False)


class _Pulse:
    """The pulse of a pool process, from a thread that stops while a task takes longer than its time limit allows."""

    def __init__(self) -> None:
        self._task_ends_by = float("inf")

    def begin_task(self, task: Task, **_: Any) -> None:
        self._task_ends_by = time.monotonic() + (task.time_limit or TASK_LIMIT_SECONDS) + MARGIN_SECONDS

    def end_task(self, **_: Any) -> None:
        self._task_ends_by = float("inf")

    def start(self, **_: Any) -> None:
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def _run(self) -> None:
        number: int = current_process().index
        while True:
            if time.monotonic() < self._task_ends_by:
                signs_of_life.pulse(number)
            time.sleep(TOUCH_SECONDS)
