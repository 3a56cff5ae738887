"""Starting again what dies, and what runs and does nothing."""

import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from infra.backoff import Backoff
from infra.local.process import Process

POLL_SECONDS = 0.2
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STABLE_SECONDS = 60.0
"""After running for so long, a process that dies is started again as quickly as the first time."""


class _Watched:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._started = time.monotonic()
        self._is_started = True

    def look(self, tell: Callable[[str], None]) -> None:
        if not self._is_started:
            if not self._backoff.is_pausing:
                self._start(tell)
            return
        if time.monotonic() - self._started > STABLE_SECONDS:
            self._backoff.reset()
        if not self._process.running():
            self._restart(f"ended, {self._process.ending()}", tell)
        elif reason := self._process.stuck():
            self._process.kill()
            self._restart(reason, tell)

    def _restart(self, reason: str, tell: Callable[[str], None]) -> None:
        tell(f"{self._process.name} {reason}; starting it again")
        self._is_started = False
        self._backoff.pause()

    def _start(self, tell: Callable[[str], None]) -> None:
        try:
            self._process.spawn()
        except OSError as error:
            # Such as a full disk: what still runs goes on, and this is tried again.
            tell(f"{self._process.name} cannot be started: {error}")
            self._backoff.pause()
        else:
            self._started, self._is_started = time.monotonic(), True


def keep_running(processes: Sequence[Process], tell: Callable[[str], None]) -> NoReturn:
    """Start again whichever of them dies or hangs, on the port and data it had, until interrupted.

    Args:
        processes: running ones.
        tell: gets a line for each that did.
    """
    watched = [_Watched(process) for process in processes]
    while True:
        for one in watched:
            one.look(tell)
        time.sleep(POLL_SECONDS)
