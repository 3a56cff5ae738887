"""The process of the API: settings, connections, routes."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import structlog
from litestar import Litestar, Router
from litestar.config.compression import CompressionConfig
from litestar.datastructures import MutableScopeHeaders, State
from litestar.di import Provide
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, ControllerRouterHandler, Message, Scope
from sqlalchemy.ext.asyncio import AsyncEngine
from uvicorn.config import STARTUP_FAILURE
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api import health, metrics, rounds
from api.analytics.places import Places
from api.analytics.points import Points
from api.analytics.routes import AnalyticsController
from api.audiences.routes import AudienceController
from api.auth import Keys, caller_of, requester_of
from api.bodies import may_be_large, turns_of
from api.budget import Budget, Requests
from api.changes import routes as changes
from api.changes.watch import ChangeWatch
from api.consumers.members import MembersController
from api.consumers.routes import ConsumerController
from api.consumers.windows import FirstPages
from api.edge import AT_END, edge
from api.errors import HANDLERS, allowed
from api.exports.routes import UNCOMPRESSED, ExportController
from api.freshness import Freshness
from api.guide import routes as guide
from api.index_owner import IndexOwner
from api.inputs import parameters, payload, refuse_parameters
from api.limits import Limits, limit
from api.metrics import Metrics
from api.openapi import routes as documentation
from api.operations.consumer_state import StateController
from api.operations.rebuild import index_router
from api.operations.reindex import ReindexController
from api.operations.retry import retry_parked
from api.operations.verify import VerifyController
from api.orders.routes import OrderController
from api.readiness import Readiness
from api.recent import Recent
from api.request import AnyRequest
from api.room import Room
from api.route_options import options_of
from api.scopes import authorize
from api.seals import Seals
from api.server.slots import max_connections
from api.server_metrics import ServerCollector
from api.stalls import Stalls
from api.stopping import Stopping
from api.storage import require_storage
from api.transactions import Transaction, Transactions
from api.turns import Turns
from api.unauthorized import authenticate_limited
from api.wake_ups import WakeUpSender
from infra import logs, settings
from infra.database.engine import open_async_engine, open_watching_engine
from infra.index import generations, isolation
from infra.index.client import open_reader
from infra.index.transports import AsyncNodes
from infra.queue import TaskQueue
from infra.redis_client import open_async_redis, refuse_cluster

log = structlog.get_logger()


def create_app() -> ASGIApp:
    """Create the ASGI application, or log the error that prevents it, and exit."""
    try:
        return _create_app()
    except Exception as error:
        log.critical("start_failed", reason=logs.error_kind(error), exc_info=error)
        sys.exit(STARTUP_FAILURE)


def _create_app() -> ASGIApp:
    chosen = settings.load()
    logs.configure(chosen.log_level)
    process_metrics = Metrics()
    app = Litestar(
        route_handlers=route_handlers(),
        exception_handlers=HANDLERS,
        lifespan=[explained_connections],
        state=State({"settings": chosen, "metrics": process_metrics}),
        openapi_config=None,
        # The framework would give the root logger a handler of its own.
        logging_config=None,
        before_send=[allow],
        # Measured on a page of 100 rows: 0.1 ms. The highest level takes 0.7 ms, for a page a tenth smaller.
        compression_config=CompressionConfig(backend="gzip", gzip_compress_level=3, exclude_opt_key=UNCOMPRESSED),
        # Each route has a limit of its own: api/bodies.py.
        request_max_body_size=None,
        pdb_on_exception=False,
    )
    resolve_in_order(app)
    served = edge(app, process_metrics, chosen.operations_port)
    if not chosen.trusted_proxies:
        return served
    return cast("ASGIApp", ProxyHeadersMiddleware(cast("Any", served), chosen.trusted_proxies))


def resolve_in_order(app: Litestar) -> None:
    """Resolve the dependencies of a handler one after the other.

    Litestar resolves independent dependencies in a group of tasks: 0.05 ms of processor time, which is 7 % of a list.
    """
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for _, model in route.route_handler_map.values():
                in_order = [sorted(batch, key=lambda dependency: dependency.key) for batch in model.dependency_batches]
                model.dependency_batches = [{dependency} for batch in in_order for dependency in batch]


def route_handlers() -> list[ControllerRouterHandler]:
    """Return the routes of the application."""
    api = Router(
        "/api/v1",
        route_handlers=[
            *(AudienceController, MembersController, ConsumerController, OrderController),
            *(ExportController, AnalyticsController),
            *(changes.router, index_router, StateController, VerifyController, ReindexController, retry_parked),
        ],
        before_request=admit,
        dependencies={
            "caller": Provide(caller_of, sync_to_thread=False),
            "parameters": Provide(parameters, sync_to_thread=False),
            "payload": Provide(payload),
            "transaction": Provide(transaction, sync_to_thread=False),
        },
    )
    return [api, health.HealthController, metrics.metrics, *documentation.ROUTES, *guide.ROUTES]


async def admit(request: AnyRequest) -> None:
    """Check the key, the rate limit and the scopes of a request to the API, and count the requests in progress.

    Runs before the handler. A guard of Litestar would do the same, but Litestar copies the whole handler for each.
    """
    if may_be_large(request.scope):
        await turns_of(request.scope).wait()  # hundreds may begin at once
    await authenticate_limited(request)
    if request.method == "OPTIONS":
        # The framework answers OPTIONS itself. The answer names only the methods of the path, so no scope is needed.
        await limit(request, "reads")
    else:
        options = options_of(request.route_handler)
        await limit(request, options.limit)
        authorize(request, options)
        refuse_parameters(request)
        if options.limit != "reads" and request.method != "DELETE" and not options.for_operators:
            require_storage(caller_of(request), request.app.state.settings.limit_stored_mib)
    request.scope["state"][AT_END] = request.app.state.requests.enter(requester_of(request).counted_as)


async def allow(message: Message, scope: Scope) -> None:
    """Put all methods of a path into the answer to OPTIONS: Litestar names the methods of the first route only."""
    if message["type"] == "http.response.start" and scope.get("method") == "OPTIONS" and "path_template" in scope:
        methods = {
            method
            for route in scope["litestar_app"].routes
            if route.path_format == scope["path_template"]
            for method in route.methods
        }
        MutableScopeHeaders.from_message(message)["Allow"] = allowed(methods)


@asynccontextmanager
async def explained_connections(app: Litestar) -> AsyncIterator[None]:
    """Open the `connections`. Log what to correct, because the server logs only the kind of an error."""
    try:
        async with connections(app):
            yield
    except settings.SettingsError as error:
        log.critical("start_failed", reason=str(error))
        raise


@asynccontextmanager
async def connections(app: Litestar) -> AsyncIterator[None]:
    """Open the connections and background tasks of the process; close all when the process ends."""
    chosen = app.state.settings
    app.state.engine = open_async_engine(chosen)
    app.state.budget = Budget(
        app.state.engine,
        searches=chosen.concurrent_searches,
        # The other half of the pool is for other environments, and for keys that are not known yet.
        connections=max(1, chosen.database_pool // 2),
        waited=app.state.metrics.waited,
    )
    app.state.requests = Requests(max_connections(chosen.database_pool) // 4)
    app.state.search = open_reader(chosen)
    app.state.index_owner = IndexOwner(chosen, app.state.search)
    await app.state.index_owner.start()
    app.state.first_pages, app.state.points = FirstPages(), Points()
    app.state.turns, app.state.room = Turns(), Room()
    app.state.redis = open_async_redis(chosen, seconds=1, retry=None)
    app.state.metrics.watch(app.state.engine)
    app.state.isolation = isolation.Watch(chosen)
    app.state.limits, app.state.places = (
        Limits(chosen, app.state.redis),
        Places(chosen, app.state.redis, app.state.budget),
    )
    await app.state.limits.start()
    await asyncio.to_thread(refuse_cluster, chosen)
    seals = Seals(app.state.engine)
    await seals.start()
    app.state.api_keys = Keys(app.state.engine, seals)
    app.state.task_queue = TaskQueue(chosen)
    wake_ups = WakeUpSender(app.state.task_queue)
    watching_engine = open_watching_engine(chosen)
    app.state.freshness = Freshness(watching_engine)
    app.state.changes = ChangeWatch(watching_engine)
    app.state.transactions = Transactions(
        app.state.budget, wake_ups.send, app.state.freshness, max_stored_bytes=chosen.idempotency_mib << 20
    )
    # A connection for the readiness, and one for the metrics: both must work while requests use the whole pool, and a
    # slow query of the metrics must not make a process unready.
    writing_engine, metrics_engine = (open_async_engine(chosen, pool_size=1) for _ in range(2))
    await _report_health(app.state, Readiness(app.state, writing_engine, watching_engine), metrics_engine)
    stalls = Stalls(app.state.engine, partial(app.state.readiness.is_up, "database"))
    background = [
        asyncio.create_task(each)
        for each in (
            app.state.api_keys.store_last_uses_regularly(),
            stalls.watch(),
            rounds.hear(chosen, app.state.redis, app.state.freshness),
        )
    ]
    Stopping(
        app.state.readiness,
        [app.state.freshness.stop_waiting, app.state.changes.stop_waiting],
        chosen.stop_delay_seconds,
    ).handle_signals()
    generations.warn_of_differences(chosen)
    app.state.isolation.start()
    # A full garbage collection would visit all 150,000 objects made by the start: 80 ms, again and again, inside
    # requests. Frozen objects are not visited.
    gc.collect()
    gc.freeze()
    gc.enable()
    try:
        yield
    finally:
        for task in background:
            task.cancel()
        wake_ups.close()
        await app.state.readiness.close()
        await app.state.freshness.close()
        await app.state.changes.close()
        for engine in (watching_engine, writing_engine, metrics_engine):
            await engine.dispose()
        await app.state.api_keys.store_last_uses()
        await app.state.index_owner.close()
        await app.state.redis.aclose()
        await app.state.search.close()
        await app.state.engine.dispose()


async def _report_health(state: State, readiness: Readiness, engine: AsyncEngine) -> None:
    """Start the checks of the servers, for `/health/ready` and `/metrics`. `engine` reads the metrics."""
    state.readiness = readiness
    await readiness.start()
    servers = ServerCollector(state.readiness, cast("AsyncNodes", state.search.transport), state.isolation)
    state.metrics_text = Recent(metrics.CACHE_SECONDS, partial(state.metrics.text, engine, servers))


def transaction(request: AnyRequest, state: State) -> Transaction:
    return Transaction(state.transactions, request, requester_of(request))
