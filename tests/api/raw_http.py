"""Requests byte by byte, as HTTP clients do not send them."""

import json
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 30
ESTABLISHED, CLOSE_WAIT = "01", "08"
"""States of connections in `/proc/net/tcp`."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=TIMEOUT_SECONDS)


def read_to_end(connection: socket.socket) -> bytes:
    """Receive until the server closes the connection."""
    received = b""
    with suppress(ConnectionError):
        while part := connection.recv(65536):
            received += part
    return received


def open_connections(url: str) -> int:
    """Return the number of connections that the server at an address holds, also of closed clients."""
    port = f":{urlsplit(url).port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(local.endswith(port) and state in {ESTABLISHED, CLOSE_WAIT} for _, local, _, state, *_ in lines)


def exchange(url: str, request: bytes) -> Answer | None:
    """Send bytes and wait until the server closes the connection. Return the response, None if there is none."""
    with connect(url) as connection:
        with suppress(ConnectionError):
            connection.sendall(request)
        return parsed(read_to_end(connection))


def parsed(received: bytes) -> Answer | None:
    if not received:
        return None
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(first.split()[1]), headers, body[: int(headers["content-length"])])


def send_slowly(connection: socket.socket, parts: Iterator[bytes], seconds: float) -> bytes:
    """Send the parts one after the other, each after a pause, until the server responds. Return the response."""
    for part in parts:
        with suppress(ConnectionError):
            connection.sendall(part)
        if select.select([connection], [], [], seconds)[0]:
            break
    return read_to_end(connection)
