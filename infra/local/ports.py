"""Free TCP ports on the loopback interface."""

import secrets
import socket

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


def pick() -> int:
    """Pick a free port at random, so that simultaneous starts rarely choose the same port."""
    while not is_free(port := LOWEST + secrets.randbelow(HIGHEST - LOWEST)):
        pass
    return port
