"""Starting again what dies, and what runs and does nothing."""

import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from infra.local.process import Process

POLL_SECONDS = 0.2
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STABLE_SECONDS = 60.0
"""After running for so long, a process that dies is started again as quickly as the first time."""


class _Watched:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._pause = FIRST_PAUSE_SECONDS
        self._started = time.monotonic()
        self._due: float | None = None

    def look(self, now: float, tell: Callable[[str], None]) -> None:
        if self._due is not None:
            if now >= self._due:
                self._start(now, tell)
            return
        if now - self._started > STABLE_SECONDS:
            self._pause = FIRST_PAUSE_SECONDS
        if not self._process.running():
            self._restart(now, f"ended, {self._process.ending()}", tell)
        elif reason := self._process.stuck():
            self._process.kill()
            self._restart(now, reason, tell)

    def _restart(self, now: float, reason: str, tell: Callable[[str], None]) -> None:
        tell(f"{self._process.name} {reason}; starting it again")
        self._due = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _start(self, now: float, tell: Callable[[str], None]) -> None:
        try:
            self._process.spawn()
        except OSError as error:
            # Such as a full disk: what still runs goes on, and this is tried again.
            tell(f"{self._process.name} cannot be started: {error}")
            self._due = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        else:
            self._started, self._due = now, None


def keep_running(processes: Sequence[Process], tell: Callable[[str], None]) -> NoReturn:
    """Start again whichever of them dies or hangs, on the port and data it had, until interrupted.

    Args:
        processes: running ones.
        tell: gets a line for each that did.
    """
    watched = [_Watched(process) for process in processes]
    while True:
        for one in watched:
            one.look(time.monotonic(), tell)
        time.sleep(POLL_SECONDS)
