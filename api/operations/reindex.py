"""Writing some consumers to the index again, for those who run the service: keys with the scope `admin`."""

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
from infra.operations import reindex, verify
from infra.operations.reindex import MOST_IDS, Asked, Counted, ReindexError, Scope
from infra.operations.verify import Run
from infra.queue import COMPARE, REBUILD
from infra.wire import as_json

RUNS = 20

Environment = Annotated[str, msgspec.Meta(description="Those of this environment, such as `shop:live`.")]
Filter = Annotated[str, msgspec.Meta(description="Those that lists find by this filter; needs an environment.")]
Ids = Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST_IDS)]


class Reindex(Body):
    """Which consumers: all that is given must hold, and something must be."""

    ids: Ids | None = None
    environment: Environment | None = None
    filter: Filter | None = None
    updated_since: Moment | None = None
    failed_since: Moment | None = None
    """Those of which a document was refused, of changes since then."""
    dry_run: bool = False
    """Only count them."""


class Reindexes(msgspec.Struct, rename="camel"):
    """The last ones, the latest first."""

    runs: list[Run]


class ReindexController(Controller):
    path = "/ops/index/reindex"
    tags = ("Operations",)

    @get("/", opt=READ, summary="What was written again, and how far it is")
    async def reindexes(self, state: State) -> Response[Reindexes]:
        async with state.engine.connect() as connection:
            found = await connection.run_sync(verify.latest, RUNS, ("reindex",))
        return Answer(HTTPStatus.OK, as_json(Reindexes(found)).encode()).response()

    @post(
        "/",
        dto=JSONBody,
        return_dto=None,
        opt=WRITE,
        status_code=HTTPStatus.ACCEPTED,
        responses={HTTPStatus.OK: ResponseSpec(Counted, generate_examples=False, description="Of a dry run")},
        summary="Write some consumers to the index again, as they are",
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
            scope = await connection.run_sync(_scope, data)
            if data.dry_run:
                return Answer(HTTPStatus.OK, as_json(await _counted(connection, state, scope)).encode())
            return Answer(HTTPStatus.ACCEPTED, as_json(await connection.run_sync(_requested, scope)).encode())

        answer = await transactions.run(request, caller, work)
        if not data.dry_run:
            await asyncio.to_thread(state.task_queue.start, COMPARE, REBUILD)
        return answer


def _scope(connection: sa.Connection, data: Reindex) -> Scope:
    asked = Asked(
        ids=data.ids,
        environment=data.environment,
        filter=data.filter,
        updated_since=data.updated_since,
        failed_since=data.failed_since,
    )
    try:
        return reindex.scope(connection, asked)
    except ReindexError as error:
        raise invalid(Fault(error.field, str(error))) from None


def _requested(connection: sa.Connection, scope: Scope) -> Run:
    run = verify.run(connection, reindex.request(connection, scope))
    assert run, "it was added just now"
    return run


async def _counted(connection: AsyncConnection, state: State, scope: Scope) -> Counted:
    found_by = await connection.run_sync(reindex.query, scope)
    if found_by is None:
        return Counted(consumers=await connection.run_sync(reindex.count, scope))
    try:
        answer: Any = await state.search.count(index=read_alias(state.settings.index_prefix), body={"query": found_by})
    except OpenSearchException as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "Search unavailable") from error
    return Counted(consumers=msgspec.json.decode(answer)["count"])
