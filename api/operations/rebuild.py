"""The index, for those who run the service: how it stands, and what may be asked of it (docs/operations.md).

Keys with the scope admin see the whole index, of all environments.
"""

import asyncio
from http import HTTPStatus

import sqlalchemy as sa
from litestar import Controller, Response, get, post
from litestar.datastructures import State

from api.errors import Problem
from api.operations.answers import accepted, ok
from api.operations.options import READ, WRITE
from api.transactions import Transaction
from infra.operations import rebuild as rebuilds
from infra.operations import status
from infra.operations.rebuild import Rebuild, RebuildError
from infra.operations.status import Status
from infra.queue import BUILD, REBUILD


class OpsController(Controller):
    path = "/ops/index"
    tags = ("Operations",)

    @get("/", opt=READ, summary="The index, what is on its way to it, and who is at work")
    async def index(self, state: State) -> Response[Status]:
        async with state.engine.connect() as connection:
            found = await connection.run_sync(status.database_status)
        await asyncio.to_thread(status.add_index_status, state.settings, found)
        return ok(found).response()

    @post("/rebuild", opt=WRITE, status_code=202, summary="Build the index anew beside the one that is read")
    async def rebuild(self, transaction: Transaction, state: State) -> Response[Rebuild]:
        return await _ask("rebuild", transaction, state)

    @post("/cancel", opt=WRITE, status_code=202, summary="Give up what is being built")
    async def cancel(self, transaction: Transaction, state: State) -> Response[Rebuild]:
        return await _ask("cancel", transaction, state)

    @post("/pause", opt=WRITE, status_code=202, summary="Let what is being built rest")
    async def pause(self, transaction: Transaction, state: State) -> Response[Rebuild]:
        return await _ask("pause", transaction, state)

    @post("/resume", opt=WRITE, status_code=202, summary="End the rest")
    async def resume(self, transaction: Transaction, state: State) -> Response[Rebuild]:
        return await _ask("resume", transaction, state)

    @post("/rollback", opt=WRITE, status_code=202, summary="Read the index before the last rebuild again")
    async def rollback(self, transaction: Transaction, state: State) -> Response[Rebuild]:
        return await _ask("rollback", transaction, state)

    @post("/drop", opt=WRITE, status_code=202, summary="Let the index before the last rebuild go")
    async def drop(self, transaction: Transaction, state: State) -> Response[Rebuild]:
        return await _ask("drop", transaction, state)


async def _ask(name: str, transaction: Transaction, state: State) -> Response[Rebuild]:
    """Write down what is asked, and wake those who do it."""
    response = await transaction.run_sync(_request, name, state, render=accepted)
    await asyncio.to_thread(state.task_queue.send, BUILD, REBUILD)
    return response


def _request(connection: sa.Connection, name: str, state: State) -> Rebuild:
    try:
        return rebuilds.REQUESTS[name](connection, state.settings)
    except RebuildError as error:
        raise Problem(HTTPStatus.CONFLICT, "Conflict", message=str(error)) from error
