"""The index, for those who run the service: how it stands, and what may be asked of it (docs/operations.md).

Keys with the scope admin see the whole index, of all environments.
"""

import asyncio
from http import HTTPStatus
from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.datastructures import State
from sqlalchemy.ext.asyncio import AsyncConnection

from api.answers import Answer
from api.auth import Caller
from api.errors import Problem
from api.operations.options import READ, WRITE
from api.transactions import Transactions
from infra.operations import rebuild as rebuilds
from infra.operations import status
from infra.operations.rebuild import Rebuild, RebuildError
from infra.operations.status import Status
from infra.queue import BUILD, REBUILD
from infra.wire import as_json


class OpsController(Controller):
    path = "/ops/index"
    tags = ("Operations",)

    @get("/", opt=READ, summary="The index, what is on its way to it, and who is at work")
    async def index(self, state: State) -> Response[Status]:
        async with state.engine.connect() as connection:
            found = await connection.run_sync(status.database_status)
        await asyncio.to_thread(status.add_index_status, state.settings, found)
        return Answer(HTTPStatus.OK, as_json(found).encode()).response()

    @post("/rebuild", opt=WRITE, status_code=202, summary="Build the index anew beside the one that is read")
    async def rebuild(
        self, request: Request[Any, Any, Any], caller: Caller, transactions: Transactions, state: State
    ) -> Response[Rebuild]:
        return await _ask("rebuild", request, caller, transactions, state)

    @post("/cancel", opt=WRITE, status_code=202, summary="Give up what is being built")
    async def cancel(
        self, request: Request[Any, Any, Any], caller: Caller, transactions: Transactions, state: State
    ) -> Response[Rebuild]:
        return await _ask("cancel", request, caller, transactions, state)

    @post("/pause", opt=WRITE, status_code=202, summary="Let what is being built rest")
    async def pause(
        self, request: Request[Any, Any, Any], caller: Caller, transactions: Transactions, state: State
    ) -> Response[Rebuild]:
        return await _ask("pause", request, caller, transactions, state)

    @post("/resume", opt=WRITE, status_code=202, summary="End the rest")
    async def resume(
        self, request: Request[Any, Any, Any], caller: Caller, transactions: Transactions, state: State
    ) -> Response[Rebuild]:
        return await _ask("resume", request, caller, transactions, state)

    @post("/rollback", opt=WRITE, status_code=202, summary="Read the index before the last rebuild again")
    async def rollback(
        self, request: Request[Any, Any, Any], caller: Caller, transactions: Transactions, state: State
    ) -> Response[Rebuild]:
        return await _ask("rollback", request, caller, transactions, state)

    @post("/drop", opt=WRITE, status_code=202, summary="Let the index before the last rebuild go")
    async def drop(
        self, request: Request[Any, Any, Any], caller: Caller, transactions: Transactions, state: State
    ) -> Response[Rebuild]:
        return await _ask("drop", request, caller, transactions, state)


async def _ask(
    name: str, request: Request[Any, Any, Any], caller: Caller, transactions: Transactions, state: State
) -> Response[Rebuild]:
    """Write down what is asked, and wake those who do it."""

    async def work(connection: AsyncConnection) -> Answer:
        try:
            found = await connection.run_sync(rebuilds.REQUESTS[name], state.settings)
        except RebuildError as error:
            raise Problem(HTTPStatus.CONFLICT, "Conflict", message=str(error)) from error
        return Answer(HTTPStatus.ACCEPTED, as_json(found).encode())

    answer = await transactions.run(request, caller, work)
    await asyncio.to_thread(state.task_queue.send, BUILD, REBUILD)
    return answer
