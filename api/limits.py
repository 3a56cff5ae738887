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

import msgspec
import structlog
from limits.aio.storage import RedisStorage
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.auth import Caller
from api.errors import Problem
from api.request import AnyRequest
from api.route_options import Category
from infra.settings import Settings

log = structlog.get_logger()

MINUTE = 60
WAIT_SECONDS = 0.02
"""What a request waits for Redis at the most."""
SKIP_SECONDS = 5.0
"""After a failure Redis is not asked for so long: slow must not be worse than down."""
TELL_SECONDS = 0.05
"""Far from its limit, what an environment sends is told to Redis this often, and no request waits for that."""
RECENT_SECONDS = 0.15
"""What Redis said longer ago says too little: the other processes may have counted all that remained."""
FAR = 200
"""Requests, and half of the limit: more than all processes together count in that time."""
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


class Tally(msgspec.Struct):
    """What this process knows of an environment's minute in one category."""

    key: str
    known: int = 0
    """The count of all processes, when Redis last answered."""
    untold: int = 0
    """Requests that were counted here since, and are to be told."""
    on_their_way: int = 0
    heard: float = -math.inf
    """When Redis last answered, by the monotonic clock."""

    @property
    def is_recent(self) -> bool:
        """Whether no other process can have counted much since."""
        return time.monotonic() - self.heard < RECENT_SECONDS

    @property
    def used(self) -> int:
        return self.known + self.on_their_way + self.untold


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
        self._minute, self._tallies = 0, dict[tuple[int, str], Tally]()
        self._calls = set[asyncio.Future[int]]()
        """The event loop itself holds a task only weakly."""

    async def count(self, caller: Caller, category: str) -> Window | None:
        """Count one request; None if there is no limit, or Redis does not answer in time."""
        own = caller.limits[category]
        limit = self._defaults[category] if own is None else own
        if not limit or not self._may_ask():
            return None
        tally = self._tally(caller.environment_id, category)
        reset = (self._minute + 1) * MINUTE
        if self._reached and tally.is_recent and limit - tally.used > max(limit // 2, FAR):
            if not tally.untold:
                asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell, tally)
            tally.untold += 1
            return Window(category, limit, tally.used, reset)
        probing, count = not self._reached, await self._increment(tally)
        if count is None and self._reached:
            self._reached = False
            log.warning("limits_unreachable")
        elif count is not None and probing:
            self._reached = True
            log.warning("limits_reached")
        return None if count is None else Window(category, limit, count, reset)

    def _tally(self, environment_id: int, category: str) -> Tally:
        minute = int(time.time()) // MINUTE
        if minute != self._minute:
            self._minute, self._tallies = minute, {}
        place = (environment_id, category)
        if (tally := self._tallies.get(place)) is None:
            tally = self._tallies[place] = Tally(f"{environment_id}:{category}:{minute}")
        return tally

    def _may_ask(self) -> bool:
        """Redis is asked unless it failed lately; then by one request at a time."""
        if self._reached:
            return True
        now = time.monotonic()
        if now < self._skip_until:
            return False
        self._skip_until = now + SKIP_SECONDS
        return True

    def _tell(self, tally: Tally) -> None:
        if tally.on_their_way:
            tally.heard = -math.inf  # Redis is slow: the next request asks, and finds out.
        elif tally.untold:
            self._send(tally, tally.untold)

    def _send(self, tally: Tally, number: int) -> asyncio.Future[int]:
        """Have Redis count so many more."""
        tally.untold, tally.on_their_way = 0, tally.on_their_way + number

        def ended(call: asyncio.Future[int]) -> None:
            tally.on_their_way -= number
            if call.cancelled() or call.exception():
                tally.heard = -math.inf
            else:
                tally.known, tally.heard = max(tally.known, call.result()), time.monotonic()

        call = asyncio.ensure_future(self._storage.incr(tally.key, MINUTE, number))
        call.add_done_callback(ended)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    async def _increment(self, tally: Tally) -> int | None:
        """The count with this request, or None. A call that is late is left to end by itself: cutting it off would
        close its connection, and one that takes long to make could never be made.
        """
        call = self._send(tally, tally.untold + 1)
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


async def limit(request: AnyRequest, category: Category) -> None:
    """Count a request of a known caller.

    Raises:
        Problem: 429.
    """
    limits: Limits = request.app.state.limits
    window = await limits.count(request.scope["auth"], category)
    if window is None:
        return
    request.scope["state"]["window"] = window
    if window.exceeded:
        seconds = max(1, math.ceil(window.reset - time.time()))
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "Rate limit exceeded", headers={"Retry-After": str(seconds)})
