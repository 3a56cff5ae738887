"""Loads on the service that stop by themselves. They are picklable, because each runs in a process of its own."""

import itertools
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol, Self
from urllib.parse import urlsplit

from tests.bench.open_loop import Due, send

REFILL_SECONDS = 1.0
DRIP = b"x"


class Load(Protocol):
    def prepared(self, seconds: float) -> Self:
        """Return the load with everything made that `run` needs, so that `run` costs as little as possible."""

    def run(self, seconds: float) -> Counter[str]:
        """Put the load on the service for a time; return how often each outcome occurred."""


class Requests(NamedTuple):
    """Requests at fixed times, even if responses are late, as far as the number of clients allows."""

    url: str
    make: Callable[[int], bytes]
    """Returns the request with a number."""
    every: float
    """Seconds between bursts."""
    burst: int = 1
    """Requests sent at the same time."""
    clients: int = 64

    def prepared(self, seconds: float) -> Self:
        requests = [self.make(number) for number, _ in enumerate(self._due(seconds))]
        return self._replace(make=requests.__getitem__)

    def run(self, seconds: float) -> Counter[str]:
        end = time.monotonic() + seconds
        answers = send(
            self.url, self._due(seconds), clients=self.clients, timeout=lambda: max(0.1, end - time.monotonic())
        )
        return Counter(str(answer.status or "unanswered") for answer in answers)

    def _due(self, seconds: float) -> Iterator[Due]:
        for number in itertools.count():
            second = number // self.burst * self.every
            if second >= seconds:
                return
            yield Due(second, "attack", partial(self.make, number))


class Held(NamedTuple):
    """Connections that are kept open, and opened again when the server closes them."""

    url: str
    first: bytes
    """Sent at the start of each connection, and followed by a byte per second; empty: nothing is ever sent."""
    connections: int

    def prepared(self, seconds: float) -> Self:
        del seconds
        return self

    def run(self, seconds: float) -> Counter[str]:
        counts, end = Counter[str](), time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            while (now := time.monotonic()) < end:
                refill = min(end, now + REFILL_SECONDS)
                while len(selector.get_map()) < self.connections and time.monotonic() < refill:
                    if not self._open(selector, counts):
                        break
                while (remaining := refill - time.monotonic()) > 0:
                    for key, _ in selector.select(remaining):
                        _close_if_ended(selector, key, counts)
                self._drip(selector)
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]  # a socket
        return counts

    def _open(self, selector: selectors.BaseSelector, counts: Counter[str]) -> bool:
        """Open a connection; return whether the server accepts it."""
        address = urlsplit(self.url)
        try:
            connection = socket.create_connection((str(address.hostname), address.port or 80), timeout=1)
            connection.sendall(self.first)
        except OSError:
            counts["refused"] += 1
            return False
        connection.settimeout(0)
        selector.register(connection, selectors.EVENT_READ)
        counts["opened"] += 1
        return True

    def _drip(self, selector: selectors.BaseSelector) -> None:
        for key in list(selector.get_map().values()) if self.first else ():
            try:
                key.fileobj.send(DRIP)  # type: ignore[union-attr]  # a socket
            except OSError:
                continue  # The selector reports the end of the connection.


def _close_if_ended(selector: selectors.BaseSelector, key: selectors.SelectorKey, counts: Counter[str]) -> None:
    connection = key.fileobj
    assert isinstance(connection, socket.socket)
    try:
        ended = not connection.recv(65536)
    except BlockingIOError:
        return
    except OSError:
        ended = True
    if ended:
        selector.unregister(connection)
        connection.close()
        counts["closed by the server"] += 1
