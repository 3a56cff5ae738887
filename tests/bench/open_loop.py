"""Requests at fixed times, each on a new connection. Late responses do not delay later requests."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.bench import wire
from tests.bench.wire import Connection


class Due(NamedTuple):
    """A request to send."""

    second: float
    """Time since the start of the loop."""
    kind: str
    make: Callable[[], bytes]


class Answer(NamedTuple):
    """The result of a request."""

    kind: str
    milliseconds: float
    """Time from when the request was due to the end of the response, or to the failure of the connection."""
    status: int
    """0 without a complete response."""
    index_state: str | None


def send(url: str, requests: Iterable[Due], *, clients: int, timeout: Callable[[], float]) -> list[Answer]:
    """Send requests in the order of their times, and return the answers.

    Args:
        url: of the API.
        requests: in the order of their times.
        clients: maximum number of requests without an answer. Further requests wait, and their answers count as late.
        timeout: returns the seconds a request may take from now on.
    """
    started = time.monotonic()

    def answer(due: Due) -> Answer:
        head = _response_head(url, due.make(), timeout())
        status = int(head.split(b" ", 2)[1]) if head else 0
        milliseconds = (time.monotonic() - started - due.second) * 1000
        return Answer(due.kind, milliseconds, status, wire.header(head, "index-state"))

    with ThreadPoolExecutor(clients) as pool:
        running = []
        for due in requests:
            time.sleep(max(0.0, started + due.second - time.monotonic()))
            running.append(pool.submit(answer, due))
        return [each.result() for each in running]


def _response_head(url: str, request: bytes, seconds: float) -> bytes:
    """Return the head of the response; empty if the connection fails or times out."""
    try:
        with Connection(url, seconds) as connection:
            return connection.response(request)[0]
    except (OSError, AssertionError):
        return b""
