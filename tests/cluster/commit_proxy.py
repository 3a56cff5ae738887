"""A TCP proxy in front of PostgreSQL that moves between servers, and that cuts connections at COMMIT."""

import contextlib
import random
import socket
import threading
from typing import Self
from urllib.parse import urlsplit

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
"""The message of the protocol, as psycopg sends it."""


class CommitProxy:
    """Forwards to the target, if any. Of the messages COMMIT a share gets no answer."""

    def __init__(self, url: str, seed: int) -> None:
        parts = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{port}")).geturl()
        self._target: tuple[str, int] | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self.cut_share = 0.0
        """Part of the messages COMMIT at which the connection is cut; half of these messages are forwarded."""
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def forward_to(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._target = (parts.hostname, parts.port)

    def disconnect(self) -> None:
        """Cut all connections, and refuse new connections."""
        self._target = None
        with self._lock:
            for connection in self._open:
                _cut(connection)
            self._open.clear()

    def close(self) -> None:
        _cut(self._listener)
        self._listener.close()
        self.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self._target is None:
                return
            with socket.create_connection(self._target) as server:
                with self._lock:
                    self._open |= {client, server}
                answers = threading.Thread(target=_carry, args=[server, client], daemon=True)
                answers.start()
                self._carry_requests(client, server)
                _cut(client)
                _cut(server)
                answers.join()
                with self._lock:
                    self._open -= {client, server}

    def _carry_requests(self, client: socket.socket, server: socket.socket) -> None:
        while content := client.recv(1 << 16):
            if COMMIT in content and self._random.random() < self.cut_share:
                self.cuts += 1
                if self._random.random() < 0.5:
                    # The answer is lost, and the message is not.
                    _cut(client)
                    server.sendall(content)
                return
            server.sendall(content)


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
    _cut(target)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
