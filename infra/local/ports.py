"""Free TCP ports on the loopback interface."""

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

LOOPBACK = "127.0.0.1"
# Below the ephemeral range: otherwise an outgoing connection could take a server's port during its restart.
LOWEST, HIGHEST = 15_000, 32_000


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Return whether a server could listen on the port now."""
    with socket.socket() as listener:
        # As servers do: old connections in TIME_WAIT do not block the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
        return True


@contextmanager
def reserved(port: int, host: str = LOOPBACK) -> Iterator[bool]:
    """Reserve the port for the API of this process. Yields False if the port is in use or reserved.

    The socket only binds, so every connection goes to the API, which shares the port by SO_REUSEPORT. Without the
    reservation, the API of another service would share the port too, and the two would answer in turns.
    """
    with socket.socket() as holder:
        if not is_free(port, host):
            yield False
            return
        # Without SO_REUSEADDR: two sockets with that option could both bind, as long as neither listens.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            holder.bind((host, port))
        except OSError:
            yield False
            return
        yield True


def pick() -> int:
    """Pick a free port at random, so that simultaneous starts rarely choose the same port."""
    while not is_free(port := LOWEST + secrets.randbelow(HIGHEST - LOWEST)):
        pass
    return port
