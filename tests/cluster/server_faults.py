"""Stop, freeze or slow down a server for the time of a context."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local.server import Server
from tests.guarantees.conftest import start

SLICE_SECONDS = 0.05
"""A slow server runs for so long, and hangs for so long."""


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        start(server)


def processes(server: Server) -> list[int]:
    """Return the process of a server, and its children: PostgreSQL has one for each connection."""
    return [server.pid, *map(int, Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())]


def send(server: Server, number: signal.Signals) -> None:
    for pid in processes(server):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)  # first, so that it starts no further process
    send(server, signal.SIGSTOP)
    try:
        yield
    finally:
        send(server, signal.SIGCONT)


@contextmanager
def slow(server: Server) -> Iterator[None]:
    """Let a server hang for half of the time."""
    ended = threading.Event()

    def hang_again_and_again() -> None:
        while not ended.wait(SLICE_SECONDS):
            with frozen(server):
                ended.wait(SLICE_SECONDS)

    thread = threading.Thread(target=hang_again_and_again)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
