"""Free TCP ports on the loopback interface."""

import secrets
import socket

LOOPBACK = "127.0.0.1"
# Below the range from which systems take ports for outgoing connections: else one of those could
# sit on a server's port while that server is being restarted.
LOWEST, HIGHEST = 15_000, 32_000


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as listener:
        # As servers do: connections of an earlier one that still fade out are no hindrance.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
        return True


def pick() -> int:
    """Pick a free port at random, so that several starts at once hardly ever meet."""
    while not is_free(port := LOWEST + secrets.randbelow(HIGHEST - LOWEST)):
        pass
    return port
