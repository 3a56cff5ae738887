"""How many requests an environment may send a minute, counted in Redis (contract.md §1).

Windows are the minutes of the clock: a count and its end are then exact, and one round trip counts and answers, where
the sliding windows of `limits` need a second one to tell what remains. The price is that a sender who straddles a
minute's end may send twice the limit within 60 seconds.

Redis is a convenience here: while it is away or slow, requests pass uncounted.
"""

import asyncio
import math
import time
from http import HTTPStatus
from typing import Any, NamedTuple

import structlog
from limits.aio.storage import RedisStorage
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.auth import Caller
from api.errors import Problem
from infra.settings import Settings

log = structlog.get_logger()

MINUTE = 60
WAIT_SECONDS = 0.02
"""What a request waits for Redis at the most."""
SKIP_SECONDS = 5.0
"""After a failure Redis is not asked for so long: slow must not be worse than down."""
LATE_SECONDS = 0.005
"""A wait that ends so much late says that this process was busy, not that Redis is slow."""


class Window(NamedTuple):
    """A category's minute, as the headers of an answer tell it."""

    category: str
    limit: int
    used: int
    reset: int
    """Unix seconds."""

    @property
    def exceeded(self) -> bool:
        return self.used > self.limit

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % max(0, self.limit - self.used)),
            (b"x-ratelimit-reset", b"%d" % self.reset),
        ]


class Limits:
    """Counts requests by environment and category; `redis` is only borrowed."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        options: dict[str, Any] = {"connection_pool": redis.connection_pool}
        prefix = f"{settings.index_prefix}:limits"
        self._storage = RedisStorage(settings.redis_url, implementation="redispy", key_prefix=prefix, **options)
        self._defaults = {
            "reads": settings.limit_reads,
            "writes": settings.limit_writes,
            "batch": settings.limit_batch,
        }
        self._reached, self._skip_until = True, 0.0

    async def count(self, caller: Caller, category: str) -> Window | None:
        """Count one request; None if there is no limit, or Redis does not answer in time."""
        own = caller.limits[category]
        limit = self._defaults[category] if own is None else own
        if not limit or not self._may_ask():
            return None
        probing, minute = not self._reached, int(time.time()) // MINUTE
        count = await self._increment(f"{caller.environment_id}:{category}:{minute}")
        if count is None and self._reached:
            self._reached = False
            log.warning("limits_unreachable")
        elif count is not None and probing:
            self._reached = True
            log.warning("limits_reached")
        return None if count is None else Window(category, limit, count, (minute + 1) * MINUTE)

    def _may_ask(self) -> bool:
        """Redis is asked unless it failed lately; then by one request at a time."""
        if self._reached:
            return True
        now = time.monotonic()
        if now < self._skip_until:
            return False
        self._skip_until = now + SKIP_SECONDS
        return True

    async def _increment(self, key: str) -> int | None:
        """The count with this request, or None. A call that is late is left to end by itself: cutting it off would
        close its connection, and one that takes long to make could never be made.
        """
        call = asyncio.ensure_future(self._storage.incr(key, MINUTE))
        call.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        deadline = time.monotonic() + WAIT_SECONDS
        done, _ = await asyncio.wait((call,), timeout=WAIT_SECONDS)
        if not done and time.monotonic() > deadline + LATE_SECONDS:
            done, _ = await asyncio.wait((call,), timeout=WAIT_SECONDS)
        try:
            if done:
                return call.result()
        except (RedisError, OSError):
            pass
        self._skip_until = time.monotonic() + SKIP_SECONDS
        return None


async def limit(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Guard of every route of the API, after `authenticate`; the route names its category as `opt["limit"]`."""
    limits: Limits = connection.app.state.limits
    window = await limits.count(connection.scope["auth"], handler.opt["limit"])
    if window is None:
        return
    connection.scope["state"]["window"] = window
    if window.exceeded:
        seconds = max(1, math.ceil(window.reset - time.time()))
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "Rate limit exceeded", headers={"Retry-After": str(seconds)})
