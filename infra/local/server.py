"""A server: a process that listens on a loopback port and can say whether it is ready."""

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.local import ports
from infra.local.errors import LocalError
from infra.local.process import Process

START_SECONDS = 180.0
"""More than any of them needs on a slow machine that recovers from a crash."""
POLL_SECONDS = 0.05
OTHER_PORTS = 3


class Server(Process):
    """A process with a port and a folder for its data, both kept when it is started again."""

    def __init__(self, name: str, folder: Path, keep_open: Sequence[int] = ()) -> None:
        super().__init__(name, folder / "log" / f"{name.lower()}.log", keep_open)
        self.data = folder / name.lower()
        self.port = ports.pick()
        self._other_ports = OTHER_PORTS

    @property
    @abstractmethod
    def url(self) -> str:
        """The address that clients use, with the password if there is one."""

    def prepare(self) -> None:
        """Write what the server reads at its start."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers."""

    def spawn(self) -> None:
        self.prepare()
        super().spawn()

    def start(self) -> None:
        """Start it, on its port and data, and wait until it is ready."""
        self.spawn()
        wait_ready([self])

    def restart(self) -> None:
        self.stop()
        self.start()

    def move_if_port_taken(self) -> bool:
        """Start again on another port if somebody took ours between its choice and its use."""
        if self._other_ports == 0 or ports.is_free(self.port):
            return False
        self._other_ports -= 1
        self.port = ports.pick()
        self.spawn()
        return True


def wait_ready(
    servers: Sequence[Server], *, tell: Callable[[Server], None] = lambda _: None, movable: bool = False
) -> None:
    """Wait until all are ready.

    Args:
        servers: spawned ones.
        tell: called for each as soon as it is ready.
        movable: nobody knows the ports yet, so one that was taken meanwhile can be changed.

    Raises:
        LocalError: one of them ended, or is not ready in time.
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
                tell(server)
        if waiting and time.monotonic() > deadline:
            raise LocalError(
                f"{waiting[0].name} is not ready after {START_SECONDS:.0f} seconds; its log: {waiting[0].log}"
            )
        time.sleep(POLL_SECONDS if waiting else 0)
