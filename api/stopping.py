"""The end of a process of the API, in two steps.

1. SIGTERM: the process reports itself as not ready and serves on, while balancers learn to send requests elsewhere.
2. SIGINT, from the main process after it has closed the ports (`api/server/__main__.py`): requests that wait for the
   index or for changes are answered at once, and the server ends the process after the last response.

So it makes no difference whether SIGTERM is sent to the main process alone or to all processes, as systemd does.
"""

import asyncio
import signal
from collections.abc import Callable, Iterable
from typing import Any

from api.readiness import Readiness

GRACE_SECONDS = 3.0
"""How much longer than STOP_DELAY_SECONDS a process waits for its main process, which may have been killed."""


class Stopping:
    """Stops a process. The server has installed its own handlers before."""

    def __init__(self, readiness: Readiness, stop_waits: Iterable[Callable[[], None]], delay_seconds: float) -> None:
        """Take the resources.

        Args:
            readiness: of the process.
            stop_waits: functions that end the waits of requests.
            delay_seconds: how long the process serves after SIGTERM.
        """
        self._readiness, self._stop_waits, self._delay_seconds = readiness, tuple(stop_waits), delay_seconds
        self._stop_server: Any = signal.getsignal(signal.SIGINT)
        self._has_ended = False

    def handle_signals(self) -> None:
        """Take the two signals over from the server."""
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {signal.SIGTERM: self._leave, signal.SIGINT: self._end}
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)

    def _leave(self) -> None:
        if not self._readiness.is_stopping:
            self._readiness.is_stopping = True
            asyncio.get_running_loop().call_later(self._delay_seconds + GRACE_SECONDS, self._end)

    def _end(self) -> None:
        # Once: the server takes a second SIGINT as the wish to cut all requests.
        if not self._has_ended:
            self._has_ended = self._readiness.is_stopping = True
            for stop_waiting in self._stop_waits:
                stop_waiting()
            self._stop_server(signal.SIGINT, None)
