"""Requests do not wait for ever for a PostgreSQL that answers nothing.

The server's own limits (`statement_timeout`, `lock_timeout`) do not count while it is frozen, and no limit ends a
COMMIT that waits for a synchronous standby. A write of many rows may be slow, so a connection stays open while the
server answers the readiness of the process.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

log = structlog.get_logger()

PATIENCE_SECONDS = 10.0
"""A request keeps a connection for so long, even though the server answers nothing."""
CHECK_SECONDS = 1.0


class Stalls:
    """Cuts the connections of requests while the server answers nothing. A single instance per process."""

    def __init__(
        self, engine: AsyncEngine, is_up: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Note the use of each connection.

        Args:
            engine: with the connections of the requests.
            is_up: whether the server has answered another connection in the last seconds.
            clock: returns seconds.
        """
        self._is_up, self._clock = is_up, clock
        self._used_since: dict[ConnectionPoolEntry, float] = {}
        self._largest = engine.pool.size()  # type: ignore[attr-defined]
        self._cut = 0
        # First, because the check of a connection before its use waits for the server as well.
        event.listen(engine.sync_engine, "checkout", self._begin, insert=True)
        event.listen(engine.sync_engine, "checkin", self._end)

    def _begin(self, _connection: object, record: ConnectionPoolEntry, _: object) -> None:
        self._used_since[record] = self._clock()

    def _end(self, _connection: object, record: ConnectionPoolEntry) -> None:
        self._used_since.pop(record, None)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.check()

    def check(self) -> None:
        """Cut the connections that have been in use for too long, if the server answers nothing.

        The request fails as after any loss of its connection. Until the server answers again, a process cuts no more
        connections than its pool has: the server keeps a session whose COMMIT waits for a standby, so each cut
        connection may be a session of the server for as long.
        """
        if self._is_up():
            self._cut = 0
            return
        latest = self._clock() - PATIENCE_SECONDS
        late = [record for record, since in self._used_since.items() if since <= latest]
        for record in late[: self._largest - self._cut]:
            self._used_since.pop(record)
            self._cut += 1
            _cut(record)


def _cut(record: ConnectionPoolEntry) -> None:
    """Shut the socket down: libpq then reads the end of the connection."""
    driver_connection: Any = record.driver_connection
    if driver_connection is None:
        return
    # The connection may be closed already, by the server or by the request.
    with suppress(psycopg.OperationalError, OSError):
        with socket.fromfd(driver_connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as connected:
            connected.shutdown(socket.SHUT_RDWR)
        log.warning("stalled_connection_cut")
