"""Rate limits: requests a minute of an environment, or of an operator's key, counted in Redis (contract.md §1).

Requests without a valid key are counted by the client's address (`api/unauthorized.py`).

A window is a minute of the clock: count and reset time are then exact, and a single round trip both counts and returns
the count; the sliding windows of the library `limits` need a second round trip for the remaining requests. The price: a
client sending across the end of a minute may send twice the limit within 60 seconds.

Redis must not slow requests down: while Redis is down or slow, requests pass uncounted
(docs/decisions/0005-rate-limits-in-fixed-one-minute-windows.md).
"""

import asyncio
import math
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import structlog
from limits.aio.storage import RedisStorage
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from api.auth import Requester, requester_of
from api.errors import Problem
from api.request import AnyRequest
from api.route_options import Category
from infra.database.installation import InstallationMissing
from infra.queue import key_prefix
from infra.settings import Settings

log = structlog.get_logger()

MINUTE = 60
WAIT_SECONDS = 0.02
"""How long a request waits for Redis."""
SKIP_SECONDS = 5.0
"""How long Redis is skipped after a failure: a slow Redis must cost no more than a dead Redis."""
REPORT_SECONDS = 0.05
"""Far from the limit, requests are reported to Redis after this time, and no request waits for Redis."""
RECENT_SECONDS = 0.15
"""How long a count from Redis is trusted. Later, the remaining processes may have used up the limit."""
FAR = 200
"""A request is far from the limit if more than this number, and more than half of the limit, remain. All processes
together count less in `RECENT_SECONDS`."""
LATE_SECONDS = 0.005
"""A wait ending this much too late is a sign of a busy process, not of a slow Redis."""


Counted: TypeAlias = Category | Literal["unauthorized"]
"""A category of requests; a request without a valid key is counted by the client's address."""


class Window(NamedTuple):
    """The count of a category in the current minute, as in the response headers."""

    category: Counted
    limit: int
    used: int
    reset: int
    """Unix seconds."""

    @property
    def exceeded(self) -> bool:
        return self.used > self.limit

    def problem(self, message: str | None = None) -> Problem:
        """Build the 429 for a request over the limit."""
        headers = {"Retry-After": str(max(1, math.ceil(self.reset - time.time())))}
        return Problem(HTTPStatus.TOO_MANY_REQUESTS, "Rate limit exceeded", message=message, headers=headers)

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % max(0, self.limit - self.used)),
            (b"x-ratelimit-reset", b"%d" % self.reset),
        ]


class Tally(msgspec.Struct):
    """The count in a category and minute, as known to this process."""

    key: str
    total: int = 0
    """Requests of all processes, when Redis last answered."""
    unreported: int = 0
    """Requests counted by this process since, and not yet sent to Redis."""
    in_flight: int = 0
    """Requests being sent to Redis."""
    answered_at: float = -math.inf
    """When Redis last answered, on the monotonic clock."""

    @property
    def is_recent(self) -> bool:
        return time.monotonic() - self.answered_at < RECENT_SECONDS

    @property
    def used(self) -> int:
        return self.total + self.in_flight + self.unreported


class Limits:
    """Counts requests by environment, or operator's key, and category. `redis` is closed by its owner."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings, self._redis = settings, redis
        self._storage: RedisStorage | None = None
        self._defaults: dict[Category, int] = {
            "reads": settings.limit_reads,
            "writes": settings.limit_writes,
            "batch": settings.limit_batch,
        }
        self._unauthorized = settings.limit_unauthorized
        self._is_available, self._skip_until = True, 0.0
        self._minute, self._tallies = 0, dict[tuple[str, Counted], Tally]()
        self._calls = set[asyncio.Future[int]]()
        """Calls in flight. The event loop holds only weak references to tasks."""

    async def start(self) -> None:
        """Read the installation id. While the database does not answer, requests pass uncounted."""
        with suppress(SQLAlchemyError, InstallationMissing):
            await self._opened()

    async def count(self, requester: Requester, category: Category) -> Window | None:
        """Count a request; return None if the category has no limit, or Redis does not answer in time."""
        own = requester.limits.get(category)
        return await self._count(requester.counted_as, category, self._defaults[category] if own is None else own)

    async def count_unauthorized(self, address: str) -> Window | None:
        """Count a request without a valid key from a client's address; return as `count`."""
        return await self._count(address, "unauthorized", self._unauthorized)

    def exceeded_unauthorized(self, address: str) -> Window | None:
        """Return the window of an address that has exceeded the limit, as far as this process knows; else None."""
        tally = self._tallies.get((address, "unauthorized"))
        is_past = int(time.time()) // MINUTE != self._minute
        if tally is None or is_past or not self._is_available:
            return None
        window = Window("unauthorized", self._unauthorized, tally.used, self._reset)
        return window if window.exceeded else None

    @property
    def _reset(self) -> int:
        return (self._minute + 1) * MINUTE

    async def _count(self, counted_as: str, category: Counted, limit: int) -> Window | None:
        if not limit or not self._may_ask():
            return None
        tally = self._tally(counted_as, category)
        reset = self._reset
        if self._is_available and tally.is_recent and limit - tally.used > max(limit // 2, FAR):
            if not tally.unreported:
                asyncio.get_running_loop().call_later(REPORT_SECONDS, self._report, tally)
            tally.unreported += 1
            return Window(category, limit, tally.used, reset)
        was_available, count = self._is_available, await self._increment(tally)
        if count is None and self._is_available:
            self._is_available = False
            log.warning("rate_limits_unavailable")
        elif count is not None and not was_available:
            self._is_available = True
            log.warning("rate_limits_recovered")
        return None if count is None else Window(category, limit, count, reset)

    def _tally(self, counted_as: str, category: Counted) -> Tally:
        minute = int(time.time()) // MINUTE
        if minute != self._minute:
            self._minute, self._tallies = minute, {}
        key = (counted_as, category)
        if (tally := self._tallies.get(key)) is None:
            tally = self._tallies[key] = Tally(f"{counted_as}:{category}:{minute}")
        return tally

    def _may_ask(self) -> bool:
        """Return whether to ask Redis: always while Redis works; after a failure once every `SKIP_SECONDS`."""
        if self._is_available:
            return True
        now = time.monotonic()
        if now < self._skip_until:
            return False
        self._skip_until = now + SKIP_SECONDS
        return True

    def _report(self, tally: Tally) -> None:
        if tally.in_flight:
            tally.answered_at = -math.inf  # Redis is slow: make the next request ask, and see the failure.
        elif tally.unreported:
            self._send(tally, tally.unreported)

    def _send(self, tally: Tally, number: int) -> asyncio.Future[int]:
        """Add `number` requests to the count in Redis."""
        tally.unreported, tally.in_flight = 0, tally.in_flight + number

        def ended(call: asyncio.Future[int]) -> None:
            tally.in_flight -= number
            if call.cancelled() or call.exception():
                tally.answered_at = -math.inf
            else:
                tally.total, tally.answered_at = max(tally.total, call.result()), time.monotonic()

        call = asyncio.ensure_future(self._add(tally.key, number))
        call.add_done_callback(ended)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    async def _add(self, key: str, number: int) -> int:
        storage = self._storage or await self._opened()
        return await storage.incr(key, MINUTE, number)

    async def _opened(self) -> RedisStorage:
        """Open the storage, whose keys begin with the id of the installation.

        Raises:
            InstallationMissing, DBAPIError: see `installation.id_of`.
        """
        prefix = await asyncio.to_thread(key_prefix, self._settings)
        options: dict[str, Any] = {"connection_pool": self._redis.connection_pool}
        self._storage = RedisStorage("redis://", implementation="redispy", key_prefix=f"{prefix}limits", **options)
        return self._storage

    async def _increment(self, tally: Tally) -> int | None:
        """Return the count with this request; None if Redis fails or is late.

        A late call is not cancelled: cancelling closes the connection, and a connection slower to open than the wait
        could never be opened.
        """
        call = self._send(tally, tally.unreported + 1)
        deadline = time.monotonic() + WAIT_SECONDS
        done, _ = await asyncio.wait((call,), timeout=WAIT_SECONDS)
        if not done and time.monotonic() > deadline + LATE_SECONDS:
            done, _ = await asyncio.wait((call,), timeout=WAIT_SECONDS)
        try:
            if done:
                return call.result()
        except (RedisError, OSError, SQLAlchemyError, InstallationMissing):
            pass
        self._skip_until = time.monotonic() + SKIP_SECONDS
        return None


async def limit(request: AnyRequest, category: Category) -> None:
    """Count an authenticated request.

    Raises:
        Problem: 429.
    """
    limits: Limits = request.app.state.limits
    window = await limits.count(requester_of(request), category)
    if window is None:
        return
    request.scope["state"]["window"] = window
    if window.exceeded:
        raise window.problem()
