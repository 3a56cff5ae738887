"""A minimal HTTP/1.1 client, so that the server is measured and not the client."""

import json
import re
import socket
from base64 import b64encode
from typing import Any, Self
from urllib.parse import urlsplit

HEAD_END, LENGTH = b"\r\n\r\n", b"content-length:"
SUCCESS = (b"http/1.1 200", b"http/1.1 201")


def get(url: str, path: str, key: str, headers: str = "") -> bytes:
    """Return the bytes of a GET request with a key; each further header ends with CR LF."""
    return f"GET {path} HTTP/1.1\r\n{_host(url)}Authorization: Bearer {key}\r\n{headers}\r\n".encode()


def post(url: str, path: str, body: bytes) -> bytes:
    """Return the bytes of a POST request with JSON."""
    return send("POST", url, path, body, "")


def write(url: str, key: str, method: str, path: str, body: Any, headers: str = "") -> bytes:
    """Return the bytes of a write to the API."""
    headers = f"Authorization: Bearer {key}\r\n{headers}"
    return send(method, url, f"/api/v1{path}", json.dumps(body).encode(), headers)


def send(method: str, url: str, path: str, body: bytes, headers: str) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\n{_host(url)}{headers}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def header(head: bytes, name: str) -> str | None:
    """Return a header of a response, or None."""
    match = re.search(rb"\r\n" + name.encode() + rb": ?([^\r]*)", head, re.IGNORECASE)
    return match[1].decode() if match else None


def _host(url: str) -> str:
    """Return the headers of an address: the host, and user and password if the address has them."""
    login, _, host = urlsplit(url).netloc.rpartition("@")
    authorization = f"Authorization: Basic {b64encode(login.encode()).decode()}\r\n" if login else ""
    return f"Host: {host}\r\n{authorization}"


class Connection:
    """A persistent connection."""

    def __init__(self, url: str, seconds: float = 60) -> None:
        """Connect. `seconds` limits the time of each step: to connect, to send, and to receive a part."""
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        self._socket = socket.create_connection((address.hostname, address.port), timeout=seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """Send a request, assert success, and return the response body."""
        return self.exchange(request)[1]

    def exchange(self, request: bytes) -> tuple[bytes, bytes]:
        """Send a request, assert success, and return head and body of the response."""
        head, body = self.response(request)
        assert head.lower().startswith(SUCCESS), (head, body)
        return head, body

    def response(self, request: bytes) -> tuple[bytes, bytes]:
        """Send a request, and return head and body of the response, whatever its status."""
        self._socket.sendall(request)
        received = self._socket.recv(65536)
        while (end := received.find(HEAD_END)) < 0:
            received += self._receive()
        head = received[:end].lower()
        begin = head.index(LENGTH) + len(LENGTH)
        missing = end + len(HEAD_END) + int(head[begin:].split(b"\r\n", 1)[0]) - len(received)
        parts = [received]
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        return received[:end], b"".join(parts)[end + len(HEAD_END) :]

    def _receive(self) -> bytes:
        part = self._socket.recv(262144)
        assert part, "the server closed the connection"
        return part

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
