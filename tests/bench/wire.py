"""HTTP/1.1 with as little of a client as there can be, so that what is measured is the server."""

import socket
from typing import Self
from urllib.parse import urlsplit

HEAD_END, LENGTH = b"\r\n\r\n", b"content-length:"


def get(url: str, path: str, key: str) -> bytes:
    """The bytes of a request with a key."""
    head = f"GET {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nAuthorization: Bearer {key}\r\n\r\n"
    return head.encode()


def post(url: str, path: str, body: bytes) -> bytes:
    """The bytes of a request with JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection:
    """One that is kept."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        self._socket = socket.create_connection((address.hostname, address.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """Send a request, and give the body of its answer, which must be a 200."""
        self._socket.sendall(request)
        received = self._socket.recv(65536)
        while (end := received.find(HEAD_END)) < 0:
            received += self._more()
        head = received[:end].lower()
        assert head.startswith(b"http/1.1 200"), received
        begin = head.index(LENGTH) + len(LENGTH)
        missing = end + len(HEAD_END) + int(head[begin:].split(b"\r\n", 1)[0]) - len(received)
        parts = [received]
        while missing > 0:
            parts.append(self._more())
            missing -= len(parts[-1])
        return b"".join(parts)[end + len(HEAD_END) :]

    def _more(self) -> bytes:
        part = self._socket.recv(262144)
        assert part, "the server hung up"
        return part

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
