"""The number of open connections of a process is bounded below the file descriptors it may open.

When all slots are in use, a new connection takes the slot of the connection that has kept the server waiting longest:
first of those between two requests or without complete headers, then of those in the middle of a body. So clients that
connect and stay silent cannot keep others out. A connection whose request is being processed keeps its slot.
"""

import asyncio
import resource
import time

import structlog

log = structlog.get_logger()

MAX_CONNECTIONS = 1024
"""Upper limit of the connections of a process, however many descriptors it may open."""
MIN_CONNECTIONS = 16
OTHER_DESCRIPTORS = 120
"""Descriptors for everything except clients and pooled database connections: OpenSearch (up to 64), Redis, files."""
LOG_SECONDS = 10.0


def max_connections(database_pool: int) -> int:
    """Return the number of connections that a process may hold, from its limit of open files."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, descriptors - OTHER_DESCRIPTORS - database_pool))


class Slots:
    """The slots of a process. Connections are known by their transports."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._open = 0
        # Dicts keep the order of insertion: the first entry has waited longest.
        self._between_requests: dict[asyncio.Transport, None] = {}
        self._inside_body: dict[asyncio.Transport, None] = {}
        self._log_after = 0.0

    def take(self, transport: asyncio.Transport) -> None:
        """Give a slot to a new connection. If all are in use, close the connection that has waited longest.

        If no connection waits for its client, the new connection is closed.
        """
        if self._open >= self._maximum:
            waiting = self._between_requests or self._inside_body
            next(iter(waiting), transport).abort()
            self._report()
        self._open += 1
        self.await_request(transport)

    def release(self, transport: asyncio.Transport) -> None:
        """Free the slot of a closed connection."""
        self._open -= 1
        self.process(transport)

    def await_request(self, transport: asyncio.Transport) -> None:
        """Note that a connection waits for its client to send a request."""
        if transport not in self._between_requests:
            self.process(transport)
            self._between_requests[transport] = None

    def await_body(self, transport: asyncio.Transport) -> None:
        """Note that a connection waits for its client to send a body."""
        if transport not in self._inside_body:
            self.process(transport)
            self._inside_body[transport] = None

    def process(self, transport: asyncio.Transport) -> None:
        """Note that a connection does not wait for its client."""
        self._between_requests.pop(transport, None)
        self._inside_body.pop(transport, None)

    def _report(self) -> None:
        if (now := time.monotonic()) >= self._log_after:
            self._log_after = now + LOG_SECONDS
            log.warning("connection_slots_full", slots=self._maximum)
