"""The API's process: settings, connections, routes."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Router
from litestar.config.compression import CompressionConfig
from litestar.connection import Request
from litestar.datastructures import State
from litestar.di import Provide
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from redis.asyncio import Redis
from ulid import ULID

from api import documentation
from api.audiences.routes import AudienceController
from api.auth import Caller, Keys, authenticate
from api.consumers.routes import ConsumerController
from api.errors import HANDLERS
from api.health import HealthController
from api.orders.routes import OrderController
from api.transactions import Transactions, Waker
from api.validation import MAX_BODY_BYTES
from infra import db, logs, opensearch, settings
from infra.queue import Nudger

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def create_app() -> ASGIApp:
    """The ASGI application.

    Raises:
        SettingsError: naming the variable that is missing or wrong.
    """
    chosen = settings.load()
    logs.configure(chosen.log_level)
    api = Router(
        "/api/v1",
        route_handlers=[AudienceController, ConsumerController, OrderController],
        guards=[authenticate],
        dependencies={
            "caller": Provide(caller, sync_to_thread=False),
            "transactions": Provide(transactions, sync_to_thread=False),
        },
    )
    app = Litestar(
        route_handlers=[api, HealthController, documentation.assets()],
        exception_handlers=HANDLERS,
        lifespan=[connections],
        state=State({"settings": chosen}),
        openapi_config=documentation.CONFIG,
        compression_config=CompressionConfig(backend="gzip"),
        request_max_body_size=MAX_BODY_BYTES,
        pdb_on_exception=False,
    )
    # Around all of it: what no route answers has a request id too.
    return request_ids(app)


@asynccontextmanager
async def connections(app: Litestar) -> AsyncIterator[None]:
    """What the process keeps open while it serves."""
    chosen = app.state.settings
    app.state.engine = db.async_engine(chosen)
    app.state.search = opensearch.reader(chosen)
    app.state.redis = Redis.from_url(chosen.redis_url, socket_timeout=1, socket_connect_timeout=1)
    app.state.api_keys = Keys(app.state.engine)
    waker = Waker(Nudger(chosen))
    app.state.transactions = Transactions(app.state.engine, waker.wake)
    try:
        yield
    finally:
        waker.close()
        await app.state.redis.aclose()
        await app.state.search.close()
        await app.state.engine.dispose()


def caller(request: Request[Any, Any, Any]) -> Caller:
    found: Caller = request.scope["auth"]
    return found


def transactions(state: State) -> Transactions:
    found: Transactions = state.transactions
    return found


def request_ids(app: ASGIApp) -> ASGIApp:
    """Every answer has an `X-Request-Id`: the request's own if it is sane, else a new one."""

    async def with_id(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # type: ignore[comparison-overlap]  # lifespan comes too
            await app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if SANE_REQUEST_ID.fullmatch(given) else f"req_{ULID()}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        await app(scope, receive, send_with_id)

    return with_id
