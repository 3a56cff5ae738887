"""The consumers' endpoints (contract.md §2)."""

from functools import partial
from typing import Any

import msgspec
from litestar import Controller, Request, Response, delete, get, post, put
from litestar.datastructures import State
from sqlalchemy.ext.asyncio import AsyncConnection

from api import current
from api.answers import Answer, array, etag, is_none_match, tags, weak_etag
from api.auth import Caller
from api.consumers import query, reads, writes
from api.consumers.included import ConsumerIncluding, included
from api.consumers.reads import ConsumerPage
from api.consumers.schemas import (
    ConsumerChange,
    ConsumerChangeItem,
    GetParameters,
    ListParameters,
    NewConsumer,
    SearchParameters,
)
from api.pages import Window
from api.transactions import Transactions
from api.validation import JSONBody, early_faults
from infra.documents import Consumer, ConsumerRow, consumer_json, read_alias

READ, WRITE = {"scope": "read:consumers", "limit": "reads"}, {"scope": "write:consumers", "limit": "writes"}
INDEXED = READ | {"from": "index"}
BODY = WRITE | {"faults": "with the database's"}
BATCH = BODY | {"limit": "batch", "batch": "consumers"}


class ConsumerController(Controller):
    path = "/consumers"
    tags = ("Consumers",)

    @post("/", dto=JSONBody, return_dto=None, opt=BODY, summary="Create a consumer")
    async def create(
        self, request: Request[Any, Any, Any], data: NewConsumer, caller: Caller, transactions: Transactions
    ) -> Response[Consumer]:
        async def work(connection: AsyncConnection, *, look: bool = False) -> Answer:
            [row] = await writes.create(connection, caller, [data], early_faults(request), batch=False, look=look)
            return _answer(row, 201)

        return await transactions.run(request, caller, work, again=partial(work, look=True))

    @post("/batch", dto=JSONBody, return_dto=None, opt=BATCH, summary="Create up to 500 consumers, all or none")
    async def create_batch(
        self, request: Request[Any, Any, Any], data: list[NewConsumer], caller: Caller, transactions: Transactions
    ) -> Response[list[Consumer]]:
        async def work(connection: AsyncConnection, *, look: bool = False) -> Answer:
            return _answers(
                await writes.create(connection, caller, data, early_faults(request), batch=True, look=look), 201
            )

        return await transactions.run(request, caller, work, again=partial(work, look=True))

    @put("/batch", dto=JSONBody, return_dto=None, opt=BATCH, summary="Change up to 500 consumers, all or none")
    async def update_batch(
        self,
        request: Request[Any, Any, Any],
        data: list[ConsumerChangeItem],
        caller: Caller,
        transactions: Transactions,
    ) -> Response[list[Consumer]]:
        async def work(connection: AsyncConnection) -> Answer:
            return _answers(await writes.update_batch(connection, caller, data, early_faults(request)), 200)

        return await transactions.run(request, caller, work)

    @put("/{consumer_id:str}", dto=JSONBody, return_dto=None, opt=BODY, summary="Change a consumer")
    async def update(
        self,
        request: Request[Any, Any, Any],
        consumer_id: str,
        data: ConsumerChange,
        caller: Caller,
        transactions: Transactions,
    ) -> Response[Consumer]:
        async def work(connection: AsyncConnection) -> Answer:
            if_match = tags(request, "if-match")
            row = await writes.update(connection, caller, consumer_id, data, early_faults(request), if_match)
            return _answer(row)

        return await transactions.run(request, caller, work)

    @delete("/{consumer_id:str}", opt=WRITE, status_code=200, summary="Delete a consumer, its orders and memberships")
    async def remove(
        self, request: Request[Any, Any, Any], consumer_id: str, caller: Caller, transactions: Transactions
    ) -> Response[Consumer]:
        async def work(connection: AsyncConnection) -> Answer:
            row = await writes.delete(connection, caller, consumer_id, tags(request, "if-match"))
            return Answer(200, consumer_json(row))

        return await transactions.run(request, caller, work)

    @get("/{consumer_id:str}", opt=READ, summary="Get a consumer, as it is now")
    async def fetch(
        self, request: Request[Any, Any, Any], consumer_id: str, asked: GetParameters, caller: Caller, state: State
    ) -> Response[ConsumerIncluding]:
        include = asked.include
        async with state.engine.connect() as connection:
            # With what belongs to it, the consumer is read as they all are at one moment.
            await connection.execution_options(isolation_level="REPEATABLE READ" if include else "AUTOCOMMIT")
            row = await writes.get(connection, caller, consumer_id)
            more = await included(connection, caller, consumer_id, include) if include else b""
        body = consumer_json(row)[:-1] + more + b"}"
        tag = weak_etag(body) if include else etag(row.version)
        if is_none_match(tags(request, "if-none-match"), tag):
            return Answer(304, b"", {"ETag": tag}).response()
        return Answer(200, body, {"ETag": tag}).response()

    @get("/", opt=INDEXED, summary="List consumers")
    async def page(
        self, request: Request[Any, Any, Any], asked: ListParameters, caller: Caller, state: State
    ) -> Response[ConsumerPage]:
        rows = query.list_query(
            caller.environment_id,
            search=asked.search,
            region=caller.region,
            created_after=asked.created_after,
            created_before=asked.created_before,
        )
        order = query.list_order(caller.environment_id, asked.sort_by, asked.sort_dir)
        question = ["list", caller.environment_id, asked.question()]
        return await _page(request, caller, state, rows, order, asked.window(), question)

    @get("/search", opt=INDEXED, summary="Search consumers, best match first")
    async def search(
        self, request: Request[Any, Any, Any], asked: SearchParameters, caller: Caller, state: State
    ) -> Response[ConsumerPage]:
        rows = query.search_query(caller.environment_id, asked.q, caller.region)
        question = ["search", caller.environment_id, asked.question()]
        return await _page(request, caller, state, rows, query.search_order(), asked.window(), question)


async def _page(
    request: Request[Any, Any, Any],
    caller: Caller,
    state: State,
    rows: query.Clause,
    order: query.Order,
    window: Window,
    question: list[Any],
) -> Response[ConsumerPage]:
    alias = read_alias(state.settings.index_prefix)

    async def search() -> bytes:
        return await reads.page(state.search, alias, rows, order, window, msgspec.json.encode(question))

    content, headers = await current.read(request, caller, state.freshness, search)
    return Answer(200, content, headers).response()


def _answer(row: ConsumerRow, status: int = 200) -> Answer:
    return Answer(status, consumer_json(row), {"ETag": etag(row.version)})


def _answers(rows: list[ConsumerRow], status: int) -> Answer:
    return Answer(status, array([consumer_json(row) for row in rows]))
