"""The server of the API: `python -m api.server`.

The main process binds two ports and starts API_WORKERS processes. All of them accept connections of both ports, and a
hanging or ended process is replaced. Clients use PORT; operators find `/metrics` and `/health/…` on METRICS_PORT.
"""

import errno
import gc
import os
import signal
import socket
import sys
import time
from contextlib import suppress

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from infra import logs, settings

BACKLOG = 256
HANGING_SECONDS = 15
"""A process that runs no Python code for so long is replaced."""
STOP_SECONDS = 15
"""Time for running requests when the server stops; then the requests are cancelled. Longer than a request waits for the
index."""
POLL_SECONDS = 0.1


# Each process runs this line when it imports the module, before it imports the application: imports create many objects
# and no garbage. `serve` and `api.app.connections` turn the collector on again.
gc.disable()


class _Supervisor(Multiprocess):
    """Starts, replaces and stops the processes."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], stop_delay_seconds: float) -> None:
        super().__init__(config, sockets)
        self._stop_delay_seconds = stop_delay_seconds
        self._stops_at = 0.0

    def handle_term(self) -> None:
        self._stops_at = time.monotonic() + self._stop_delay_seconds
        super().handle_term()

    def terminate_all(self) -> None:
        """Stop the processes in the steps of `api/stopping.py`. A further signal ends the delay."""
        self._send(signal.SIGTERM)
        while time.monotonic() < self._stops_at and not self.signal_queue and self._running():
            time.sleep(POLL_SECONDS)
        # The ports are closed here first. Otherwise the kernel would accept connections that no process serves.
        for listener in self.sockets:
            listener.close()
        self._send(signal.SIGINT)

    def _send(self, number: signal.Signals) -> None:
        for process in self._running():
            with suppress(ProcessLookupError):
                os.kill(process.pid or 0, number)

    def _running(self) -> list[Process]:
        return [process for process in self.processes if process.exitcode is None]


def serve(application: str = "api.app:create_app") -> None:
    """Serve until SIGTERM or SIGINT. Exit if a process cannot start.

    Raises:
        SettingsError: a setting is missing or wrong, or a port is in use; the message names the variable.
    """
    gc.enable()
    chosen = settings.load()
    logs.configure(chosen.log_level)
    config = uvicorn.Config(
        application,
        factory=True,
        http="api.server.connection:Connection",
        ws="none",
        loop="uvloop",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        workers=chosen.api_workers,
        backlog=BACKLOG,
        timeout_keep_alive=chosen.idle_seconds,
        timeout_worker_healthcheck=HANGING_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    listeners = [
        _listener("PORT", chosen.host, chosen.port),
        _listener("METRICS_PORT", chosen.metrics_host, chosen.operations_port),
    ]
    supervisor = _Supervisor(config, listeners, chosen.stop_delay_seconds)
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit(STARTUP_FAILURE)


def _listener(name: str, host: str, port: int) -> socket.socket:
    """Bind a port. SO_REUSEPORT, because `make up` has reserved the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise settings.SettingsError(f"port {port} is in use: choose another with {name}") from error
    return listener


if __name__ == "__main__":
    logs.configure("info")
    try:
        serve()
    except settings.SettingsError as error:
        logs.exit_after(error)
