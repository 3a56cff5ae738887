"""A TCP proxy in front of a real server, for a test to close, to let hang or to freeze."""

import contextlib
import socket
import threading
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """Forwards a port to a server while open; if hanging, accepts connections and never responds."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname
        assert parts.port
        self._target = (parts.hostname, parts.port)
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._hanging = False
        self._running = threading.Event()
        self._running.set()
        self.hanging_connections = 0
        """Number of next connections that are accepted and never get a response."""
        self.refused: bytes | None = None
        """A text: a request with this text ends its connection."""
        self.port = 0
        self.open()
        self.address = address.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{self.port}")

    def open(self, *, hanging: bool = False) -> None:
        self.close()
        self._hanging = hanging
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def freeze(self) -> None:
        """Hold back everything on all connections, as a frozen server does, until `thaw`."""
        self._running.clear()

    def thaw(self) -> None:
        self._running.set()

    def close(self) -> None:
        """Stop listening, and close all connections."""
        for one in [*([self._listener] if self._listener else []), *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._listener, self._open = None, []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._open.append(client)
                if self._hanging or self.hanging_connections:
                    self.hanging_connections = max(0, self.hanging_connections - 1)
                    continue
                server = socket.create_connection(self._target)
                self._open.append(server)
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=[one, other], daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                self._running.wait()
                if self.refused and self.refused in content:
                    source.shutdown(socket.SHUT_RDWR)
                    break
                target.sendall(content)
            target.shutdown(socket.SHUT_RDWR)
