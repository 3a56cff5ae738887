"""`/ops/index`: the status of the index, and a path for each request of a rebuild (docs/operations.md).

An operator's key sees the whole index, with all environments.
"""

import asyncio
from http import HTTPStatus

import sqlalchemy as sa
from litestar import Response, Router, get, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler

from api.errors import Problem
from api.operations.answers import accepted, ok
from api.operations.options import READ, WRITE
from api.transactions import Transaction
from infra.operations import status
from infra.operations.rebuild import REQUESTS, SUMMARIES, Rebuild, RebuildError, Request
from infra.operations.status import Status
from infra.queue import BUILD


@get("/", opt=READ, summary="Status of the index, its backlog, and the workers")
async def index(state: State) -> Response[Status]:
    async with state.engine.connect() as connection:
        report = await connection.run_sync(status.database_status, state.settings)
    await asyncio.to_thread(status.add_index_status, state.settings, report)
    return ok(report).response()


def _route(request: Request) -> HTTPRouteHandler:
    """The route of a request: write the request into the database, then wake a worker."""

    async def handler(transaction: Transaction, state: State) -> Response[Rebuild]:
        response = await transaction.run_sync(_make, request, state, render=accepted)
        await asyncio.to_thread(state.task_queue.send, BUILD)
        return response

    # The operation's name in the OpenAPI document.
    handler.__name__ = request
    return post(f"/{request}", opt=WRITE, status_code=HTTPStatus.ACCEPTED, summary=SUMMARIES[request])(handler)


def _make(connection: sa.Connection, request: Request, state: State) -> Rebuild:
    try:
        return REQUESTS[request](connection, state.settings)
    except RebuildError as error:
        raise Problem(HTTPStatus.CONFLICT, "Conflict", message=str(error)) from error


index_router = Router("/ops/index", route_handlers=[index, *map(_route, REQUESTS)], tags=["Operations"])
