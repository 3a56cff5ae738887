"""Routes to write chosen consumers to the index again. They need a key with the scope `admin`."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from litestar import Controller, Request, Response, get, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from opensearchpy.exceptions import OpenSearchException
from sqlalchemy.ext.asyncio import AsyncConnection

from api.answers import Answer
from api.auth import Caller
from api.errors import Fault, Problem, invalid
from api.operations.options import READ, WRITE
from api.pages import Moment
from api.transactions import Transactions
from api.validation import Body, JSONBody
from infra.index.naming import read_alias
from infra.operations.reindex import (
    MAX_IDS,
    Counted,
    ReindexError,
    ReindexRequest,
    ReindexScope,
    check_request,
    count_rows,
    index_query,
    request_reindex,
)
from infra.operations.verify import Run, find_run, latest_runs
from infra.queue import COMPARE, REBUILD
from infra.wire import as_json

MAX_RUNS = 20

Environment = Annotated[str, msgspec.Meta(description="Consumers of this environment, such as `shop:live`.")]
Filter = Annotated[str, msgspec.Meta(description="Consumers that match this list filter; needs `environment`.")]
Ids = Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_IDS)]


class Reindex(Body):
    """The consumers to write again. Give at least one condition; a consumer must meet every condition given."""

    ids: Ids | None = None
    environment: Environment | None = None
    filter: Filter | None = None
    updated_since: Moment | None = None
    failed_since: Moment | None = None
    """Consumers with a change since this time whose document OpenSearch refused."""
    dry_run: bool = False
    """Count the consumers and write none."""


class Reindexes(msgspec.Struct, rename="camel"):
    """The latest reindex runs, newest first."""

    runs: list[Run]


class ReindexController(Controller):
    path = "/ops/index/reindex"
    tags = ("Operations",)

    @get("/", opt=READ, summary="List reindex runs and their progress")
    async def reindexes(self, state: State) -> Response[Reindexes]:
        async with state.engine.connect() as connection:
            runs = await connection.run_sync(latest_runs, MAX_RUNS, ("reindex",))
        return Answer(HTTPStatus.OK, as_json(Reindexes(runs)).encode()).response()

    @post(
        "/",
        dto=JSONBody,
        return_dto=None,
        opt=WRITE,
        status_code=HTTPStatus.ACCEPTED,
        responses={HTTPStatus.OK: ResponseSpec(Counted, generate_examples=False, description="Result of a dry run")},
        summary="Write chosen consumers to the index again, unchanged",
    )
    async def reindex(
        self,
        request: Request[Any, Any, Any],
        data: Reindex,
        caller: Caller,
        transactions: Transactions,
        state: State,
    ) -> Response[Run]:
        async def work(connection: AsyncConnection) -> Answer:
            scope = await connection.run_sync(_check, data)
            if data.dry_run:
                return Answer(HTTPStatus.OK, as_json(await _count(connection, state, scope)).encode())
            return Answer(HTTPStatus.ACCEPTED, as_json(await connection.run_sync(_request, scope)).encode())

        answer = await transactions.run(request, caller, work)
        if not data.dry_run:
            await asyncio.to_thread(state.task_queue.send, COMPARE, REBUILD)
        return answer


def _check(connection: sa.Connection, data: Reindex) -> ReindexScope:
    request = ReindexRequest(
        ids=data.ids,
        environment=data.environment,
        filter=data.filter,
        updated_since=data.updated_since,
        failed_since=data.failed_since,
    )
    try:
        return check_request(connection, request)
    except ReindexError as error:
        raise invalid(Fault(error.field, str(error))) from None


def _request(connection: sa.Connection, scope: ReindexScope) -> Run:
    run = find_run(connection, request_reindex(connection, scope))
    assert run, "requested in this transaction"
    return run


async def _count(connection: AsyncConnection, state: State, scope: ReindexScope) -> Counted:
    query = await connection.run_sync(index_query, scope)
    if query is None:
        return Counted(consumers=await connection.run_sync(count_rows, scope))
    try:
        response: Any = await state.search.count(index=read_alias(state.settings.index_prefix), body={"query": query})
    except OpenSearchException as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "Search unavailable") from error
    return Counted(consumers=msgspec.json.decode(response)["count"])
