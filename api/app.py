"""The API's process: settings, connections, routes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, Router
from litestar.config.compression import CompressionConfig
from litestar.datastructures import MutableScopeHeaders, State
from litestar.di import Provide
from litestar.types import ASGIApp, Message, Scope
from redis.asyncio import Redis

from api.audiences.routes import AudienceController
from api.auth import Caller, Keys, authenticate, authorize
from api.consumers.members import MembersController
from api.consumers.routes import ConsumerController
from api.consumers.windows import FirstPages
from api.edge import edge
from api.errors import HANDLERS
from api.freshness import Freshness
from api.health import HealthController
from api.inputs import MAX_BODY_BYTES, parameters, payload
from api.limits import Limits, limit
from api.metrics import Metrics, metrics
from api.openapi import routes as documentation
from api.operations.consumer_state import StateController
from api.operations.rebuild import OpsController
from api.operations.reindex import ReindexController
from api.operations.verify import VerifyController
from api.orders.routes import OrderController
from api.request import AnyRequest
from api.route_options import options_of
from api.transactions import Transaction, Transactions
from api.wake_ups import WakeUpSender
from infra import logs, settings
from infra.database.engine import open_async_engine, open_watching_engine
from infra.index import generations
from infra.index.client import open_reader
from infra.queue import TaskQueue


def create_app() -> ASGIApp:
    """The ASGI application.

    Raises:
        SettingsError: naming the variable that is missing or wrong.
    """
    chosen = settings.load()
    logs.configure(chosen.log_level)
    api = Router(
        "/api/v1",
        route_handlers=[
            *(AudienceController, MembersController, ConsumerController, OrderController),
            *(OpsController, StateController, VerifyController, ReindexController),
        ],
        before_request=admit,
        dependencies={
            "caller": Provide(caller, sync_to_thread=False),
            "parameters": Provide(parameters, sync_to_thread=False),
            "payload": Provide(payload),
            "transaction": Provide(transaction, sync_to_thread=False),
        },
    )
    counted = Metrics()
    app = Litestar(
        route_handlers=[api, HealthController, metrics, *documentation.ROUTES],
        exception_handlers=HANDLERS,
        lifespan=[connections],
        state=State({"settings": chosen, "metrics": counted}),
        openapi_config=None,
        before_send=[allow],
        # A page of 100 takes 0.1 ms to compress, and 0.7 at the highest level, which would make it a tenth smaller.
        compression_config=CompressionConfig(backend="gzip", gzip_compress_level=3),
        request_max_body_size=MAX_BODY_BYTES,
        pdb_on_exception=False,
    )
    return edge(app, counted)


async def admit(request: AnyRequest) -> None:
    """Before every request of the API; no guard, as for each of those Litestar copies the whole handler."""
    await authenticate(request)
    if request.method == "OPTIONS":
        # The framework answers these itself, with the methods of the path alone: they need no scope.
        await limit(request, "reads")
    else:
        options = options_of(request.route_handler)
        await limit(request, options.limit)
        authorize(request, options.scope)


async def allow(message: Message, scope: Scope) -> None:
    """Name all methods of a path in the answer to OPTIONS: Litestar names those of the route it knew first."""
    if message["type"] == "http.response.start" and scope.get("method") == "OPTIONS" and "path_template" in scope:
        methods = {
            method
            for route in scope["litestar_app"].routes
            if route.path_format == scope["path_template"]
            for method in route.methods
        }
        MutableScopeHeaders.from_message(message)["Allow"] = ", ".join(sorted(methods))


@asynccontextmanager
async def connections(app: Litestar) -> AsyncIterator[None]:
    """What the process keeps open while it serves."""
    chosen = app.state.settings
    app.state.engine = open_async_engine(chosen)
    app.state.search = open_reader(chosen)
    app.state.first_pages = FirstPages()
    app.state.redis = Redis.from_url(chosen.redis_url, socket_timeout=1, socket_connect_timeout=1, retry=None)
    app.state.metrics.watch(app.state.engine)
    app.state.limits = Limits(chosen, app.state.redis)
    app.state.api_keys = Keys(app.state.engine)
    uses = asyncio.create_task(app.state.api_keys.keep_uses())
    app.state.task_queue = TaskQueue(chosen)
    sender = WakeUpSender(app.state.task_queue)
    tickers = open_watching_engine(chosen)
    app.state.freshness = Freshness(tickers)
    app.state.transactions = Transactions(app.state.engine, sender.wake_up, app.state.freshness)
    generations.warn_if_mapping_differs(chosen)
    try:
        yield
    finally:
        uses.cancel()
        sender.close()
        await app.state.freshness.close()
        await tickers.dispose()
        await app.state.api_keys.store_uses()
        await app.state.redis.aclose()
        await app.state.search.close()
        await app.state.engine.dispose()


def caller(request: AnyRequest) -> Caller:
    found: Caller = request.scope["auth"]
    return found


def transaction(request: AnyRequest, state: State, caller: Caller) -> Transaction:
    return Transaction(state.transactions, request, caller)
