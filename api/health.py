"""Health checks: whether the process runs, and whether requests can be answered."""

import asyncio

import msgspec
from litestar import Controller, Response, get
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from api.edge import OPERATIONS
from api.recent import Recent
from api.request import AnyRequest
from infra.index.client import OpenSearchError
from infra.index.naming import read_alias
from infra.operations.outbox import LIVE_LAG_MS

CHECK_SECONDS = 3.0
CACHE_SECONDS = 1.0
"""The dependencies are checked at most once in this period, however many requests there are."""


class Live(msgspec.Struct):
    """The process runs."""

    status: str = "ok"
    """Always `ok`."""


class Ready(msgspec.Struct, rename="camel"):
    """`ok` or `unavailable`, for each dependency and as a whole.

    The service is ready without the queue, because wake-ups may be lost at any time. Checked at most once a second.
    """

    status: str
    """`ok` if requests can be answered."""
    database: str
    """PostgreSQL."""
    search: str
    """OpenSearch."""
    queue: str
    """Valkey or Redis."""


class ReadyForOperators(Ready, rename="camel"):
    """`Ready`, and the age of the oldest change of any environment that is not searchable yet; null if unknown."""

    index_lag_ms: int | None


class HealthController(Controller):
    path = "/health"
    tags = ("Service",)

    @get("/live", summary="Check that the process runs", description="Asks no other server.")
    async def live(self) -> Live:
        return Live()

    @get(
        "/ready",
        summary="Check each dependency",
        description="The result of a check is kept for a second.",
        responses={503: ResponseSpec(Ready, generate_examples=False)},
    )
    async def ready(self, request: AnyRequest, state: State) -> Response[Ready]:
        recent: Recent[ReadyForOperators] = state.readiness
        full = await recent.value()
        # The lag shows how much all merchants write, so it is for operators only.
        public = Ready(full.status, full.database, full.search, full.queue)
        body = full if request.scope["state"][OPERATIONS] else public
        return Response(body, status_code=200 if full.status == "ok" else 503)


async def check(state: State) -> ReadyForOperators:
    """Check each dependency."""
    lag, search, queue = await asyncio.gather(_lag(state), _search(state), _queue(state))
    up = lag is not None and search
    return ReadyForOperators(_word(up), _word(lag is not None), _word(search), _word(queue), lag)


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
            return bool(await state.search.indices.exists_alias(name=alias)) and not state.index_owner.is_foreign
    except (OpenSearchError, TimeoutError):
        return False


async def _queue(state: State) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return bool(await state.redis.ping())
    except (RedisError, OSError, TimeoutError):
        return False
