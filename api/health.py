"""Health checks: whether the process runs, and whether requests can be answered."""

import asyncio

import msgspec
from litestar import Controller, Response, get
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from infra.index.client import OpenSearchError
from infra.index.naming import read_alias
from infra.operations.outbox import LIVE_LAG_MS

CHECK_SECONDS = 3.0


class Live(msgspec.Struct):
    status: str = "ok"


class Ready(msgspec.Struct, rename="camel"):
    """`ok` or `unavailable`, for each dependency and as a whole.

    The service is ready without the queue, because wake-ups may be lost at any time. `indexLagMs` is the age of the
    oldest change not searchable yet; null if unknown.
    """

    status: str
    database: str
    search: str
    queue: str
    index_lag_ms: int | None


class HealthController(Controller):
    path = "/health"
    tags = ("Service",)

    @get("/live", summary="Check that the process runs")
    async def live(self) -> Live:
        return Live()

    @get("/ready", summary="Check each dependency", responses={503: ResponseSpec(Ready, generate_examples=False)})
    async def ready(self, state: State) -> Response[Ready]:
        lag, search, queue = await asyncio.gather(_lag(state), _search(state), _queue(state))
        up = lag is not None and search
        body = Ready(_word(up), _word(lag is not None), _word(search), _word(queue), lag)
        return Response(body, status_code=200 if up else 503)


def _word(up: bool) -> str:  # noqa: FBT001 (the only argument, clear at each call)
    return "ok" if up else "unavailable"


async def _lag(state: State) -> int | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS), state.engine.connect() as connection:
            return int((await connection.execute(LIVE_LAG_MS)).scalar_one())
    except (SQLAlchemyError, TimeoutError):
        return None


async def _search(state: State) -> bool:
    alias = read_alias(state.settings.index_prefix)
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return bool(await state.search.indices.exists_alias(name=alias))
    except (OpenSearchError, TimeoutError):
        return False


async def _queue(state: State) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return bool(await state.redis.ping())
    except (RedisError, OSError, TimeoutError):
        return False
