"""Restart processes that end or make no progress."""

import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from infra.backoff import Backoff
from infra.local.process import Process

POLL_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STABLE_SECONDS = 60.0
"""After running for this long, a process is restarted with the shortest pause again."""


class _Watched:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._started = time.monotonic()
        self._is_started = True

    def check(self, report: Callable[[str], None]) -> None:
        if not self._is_started:
            if not self._backoff.is_pausing:
                self._start(report)
            return
        if time.monotonic() - self._started > STABLE_SECONDS:
            self._backoff.reset()
        if not self._process.running():
            self._restart(f"ended, {self._process.ending()}", report)
        elif reason := self._process.stuck():
            self._process.kill()
            self._restart(reason, report)

    def _restart(self, reason: str, report: Callable[[str], None]) -> None:
        report(f"{self._process.name} {reason}; restarting it")
        self._is_started = False
        self._backoff.pause()

    def _start(self, report: Callable[[str], None]) -> None:
        try:
            self._process.spawn()
        except OSError as error:
            # For example a full disk: the remaining processes continue, and the start is tried again.
            report(f"{self._process.name} cannot be started: {error}")
            self._backoff.pause()
        else:
            self._started, self._is_started = time.monotonic(), True


def keep_running(processes: Sequence[Process], report: Callable[[str], None]) -> NoReturn:
    """Restart each process that ends or hangs, on the same port and data, until interrupted.

    Args:
        processes: running processes.
        report: receives one line for each event.
    """
    watched = [_Watched(process) for process in processes]
    while True:
        for each in watched:
            each.check(report)
        time.sleep(POLL_SECONDS)
