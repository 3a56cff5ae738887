"""The number of open connections of a process is bounded below its limit of file descriptors.

If all slots are in use, a new connection takes the slot of the connection with the longest wait for its client: a wait
for a request first, then a wait for a body. So silent clients cannot keep others out. A connection with a running
request keeps its slot.
"""

import asyncio
import resource
import time

import structlog

log = structlog.get_logger()

MAX_CONNECTIONS = 1024
"""The most connections of a process, for any limit of descriptors."""
MIN_CONNECTIONS = 16
OTHER_DESCRIPTORS = 120
"""Descriptors for OpenSearch (up to 64), Redis and files; those of the database pool are added."""
LOG_SECONDS = 10.0


def max_connections(database_pool: int) -> int:
    """Return the number of slots of this process, computed from its limit of open files."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, descriptors - OTHER_DESCRIPTORS - database_pool))


class Slots:
    """The slots of a process. A connection is identified by its transport."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._open = 0
        # A dict keeps the order of insertion: the first entry has the longest wait.
        self._between_requests: dict[asyncio.Transport, None] = {}
        self._inside_body: dict[asyncio.Transport, None] = {}
        self._log_after = 0.0

    def take(self, transport: asyncio.Transport) -> None:
        """Give a slot to a new connection. If all are in use, close the connection with the longest wait.

        If no connection waits for its client, close the new connection.
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
        """Begin a connection's wait for a request."""
        if transport not in self._between_requests:
            self.process(transport)
            self._between_requests[transport] = None

    def await_body(self, transport: asyncio.Transport) -> None:
        """Begin a connection's wait for a body."""
        if transport not in self._inside_body:
            self.process(transport)
            self._inside_body[transport] = None

    def process(self, transport: asyncio.Transport) -> None:
        """End a connection's wait."""
        self._between_requests.pop(transport, None)
        self._inside_body.pop(transport, None)

    def _report(self) -> None:
        if (now := time.monotonic()) >= self._log_after:
            self._log_after = now + LOG_SECONDS
            log.warning("connection_slots_full", slots=self._maximum)
