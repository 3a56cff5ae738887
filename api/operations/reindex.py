"""Routes to write chosen consumers to the index again, for operators."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any, ClassVar

import msgspec
import sqlalchemy as sa
from litestar import Controller, Response, get, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from sqlalchemy.ext.asyncio import AsyncConnection

from api.errors import Fault, invalid
from api.operations.answers import accepted, ok
from api.operations.options import READ, WRITE_BY_IDS
from api.pages import Moment
from api.transactions import Transaction
from api.validation import Input
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
from infra.queue import COMPARE

MAX_RUNS = 20

Environment = Annotated[str, msgspec.Meta(description="Consumers of this environment, such as `shop:live`.")]
Filter = Annotated[str, msgspec.Meta(description="Consumers that match this list filter; needs `environment`.")]
Ids = Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_IDS)]


class Reindex(Input):
    """The consumers to write again. Give at least one condition; a consumer must meet every condition given."""

    ids: Ids | None = None
    """Ids of consumers, of any environment."""
    environment: Environment | None = None
    filter: Filter | None = None
    updated_since: Moment | None = None
    failed_since: Moment | None = None
    """Consumers with a refused document for a change at this time or later."""
    dry_run: bool = False
    """Count the consumers and write none."""

    example: ClassVar[dict[str, Any]] = {"updatedSince": "2024-11-01T00:00:00Z", "dryRun": True}


class Reindexes(msgspec.Struct, rename="camel"):
    """The latest reindex runs, newest first."""

    runs: list[Run]
    """At most 20 runs."""

    example: ClassVar[dict[str, Any]] = {
        "runs": [
            Run.example
            | {
                "id": 13,
                "kind": "reindex",
                "environment": "shop:live",
                "scope": {"hasFilter": True},
                "total": 5000,
                "compared": 5000,
                "inFlight": 0,
                "differences": 0,
                "causes": {},
                "seconds": 0.7,
            }
        ]
    }


class ReindexController(Controller):
    path = "/ops/index/reindex"
    tags = ("Operations",)

    @get("/", opt=READ, summary="List reindex runs and their progress")
    async def reindexes(self, state: State) -> Response[Reindexes]:
        async with state.engine.connect() as connection:
            runs = await connection.run_sync(latest_runs, MAX_RUNS, ("reindex",))
        return ok(Reindexes(runs)).response()

    @post(
        "/",
        opt=WRITE_BY_IDS,
        status_code=HTTPStatus.ACCEPTED,
        responses={HTTPStatus.OK: ResponseSpec(Counted, generate_examples=False, description="Result of a dry run")},
        summary="Write chosen consumers to the index again, unchanged",
    )
    async def reindex(self, payload: Reindex, transaction: Transaction, state: State) -> Response[Run]:
        if payload.dry_run:
            return await transaction.run(_count, state, payload, render=ok)
        response = await transaction.run_sync(_request, payload, render=accepted)
        await asyncio.to_thread(state.task_queue.send, COMPARE)
        return response


def _check(connection: sa.Connection, payload: Reindex) -> ReindexScope:
    request = ReindexRequest(
        ids=payload.ids,
        environment=payload.environment,
        filter=payload.filter,
        updated_since=payload.updated_since,
        failed_since=payload.failed_since,
    )
    try:
        return check_request(connection, request)
    except ReindexError as error:
        raise invalid(Fault(error.field, str(error))) from None


def _request(connection: sa.Connection, payload: Reindex) -> Run:
    run = find_run(connection, request_reindex(connection, _check(connection, payload)))
    assert run, "requested in this transaction"
    return run


async def _count(connection: AsyncConnection, state: State, payload: Reindex) -> Counted:
    scope = await connection.run_sync(_check, payload)
    query = await connection.run_sync(index_query, scope)
    if query is None:
        return Counted(consumers=await connection.run_sync(count_rows, scope))
    state.index_owner.require_own()
    response: Any = await state.search.count(index=read_alias(state.settings.index_prefix), body={"query": query})
    return Counted(consumers=msgspec.json.decode(response)["count"])
