"""A server: a process that listens on a loopback port and reports whether it is ready."""

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.local import ports
from infra.local.errors import LocalError
from infra.local.process import Process

START_SECONDS = 180.0
"""Longer than any server needs on a slow machine that recovers from a crash."""
POLL_SECONDS = 0.05
PORT_ATTEMPTS = 3


class Server(Process):
    """A process with a port and a data folder; both survive a restart."""

    def __init__(self, name: str, folder: Path, keep_open: Sequence[int] = ()) -> None:
        super().__init__(name, folder / "log" / f"{name.lower()}.log", keep_open)
        self.data = folder / name.lower()
        self.port = ports.pick()
        self._port_attempts = PORT_ATTEMPTS

    @property
    @abstractmethod
    def url(self) -> str:
        """The address for clients, including the password if the server has one."""

    def prepare(self) -> None:
        """Write the configuration of the server."""

    @abstractmethod
    def ready(self) -> bool:
        """Return whether the server answers."""

    def spawn(self) -> None:
        self.prepare()
        super().spawn()

    def start(self) -> None:
        """Start the server on its port and data, and wait until it is ready."""
        self.spawn()
        wait_ready([self])

    def move_if_port_taken(self) -> bool:
        """Restart on another port if another program took the port after its choice."""
        if self._port_attempts == 0 or ports.is_free(self.port):
            return False
        self._port_attempts -= 1
        self.port = ports.pick()
        self.spawn()
        return True


def wait_ready(
    servers: Sequence[Server], *, on_ready: Callable[[Server], None] = lambda _: None, movable: bool = False
) -> None:
    """Wait until all servers are ready.

    Args:
        servers: spawned servers.
        on_ready: called for each server when it is ready.
        movable: the ports are not published yet, so a server can move away from a taken port.

    Raises:
        LocalError: a server ended, or is not ready in time.
    """
    deadline = time.monotonic() + START_SECONDS
    waiting = list(servers)
    while waiting:
        for server in tuple(waiting):
            if not server.running():
                if not (movable and server.move_if_port_taken()):
                    raise LocalError(f"{server.name} ended while starting, {server.ending()}")
            elif server.ready():
                waiting.remove(server)
                on_ready(server)
        if waiting and time.monotonic() > deadline:
            raise LocalError(
                f"{waiting[0].name} is not ready after {START_SECONDS:.0f} seconds; its log: {waiting[0].log}"
            )
        time.sleep(POLL_SECONDS if waiting else 0)
