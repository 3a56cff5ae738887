"""The consumers' endpoints (contract.md §2)."""

from functools import partial
from typing import Any

import msgspec
from litestar import Controller, Request, Response, delete, get, post, put
from litestar.datastructures import State
from sqlalchemy.ext.asyncio import AsyncConnection

from api import consistency
from api.answers import Answer, array, etag, is_none_match, tags, weak_etag
from api.audiences import membership
from api.auth import Caller
from api.consumers import reads, writes
from api.consumers.schemas import (
    ConsumerChange,
    ConsumerChangeItem,
    GetParameters,
    ListParameters,
    NewConsumer,
    SearchParameters,
)
from api.consumers.shown import ConsumerIncluding, ConsumerPage, SearchPage
from api.orders.writes import newest
from api.route_options import route_options
from api.transactions import Transactions
from api.validation import JSONBody, early_faults
from infra.index.documents import Consumer, ConsumerRow, consumer_json

INDEXED = route_options("read:consumers", "reads", from_index=True)
WRITE = route_options("write:consumers", "writes")
BODY = WRITE | {"faults": "with the database's"}
BATCH = BODY | route_options("write:consumers", "batch", batch_key="consumers")
NEWEST_ORDERS = 50


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

    @get("/{consumer_id:str}", opt=INDEXED, summary="Get a consumer, as it is now")
    async def fetch(
        self, request: Request[Any, Any, Any], consumer_id: str, asked: GetParameters, caller: Caller, state: State
    ) -> Response[ConsumerIncluding]:
        include = asked.include
        consistency.requested_write(request, caller)
        async with state.engine.connect() as connection:
            # With what belongs to it, the consumer is read as they all are at one moment.
            await connection.execution_options(isolation_level="REPEATABLE READ" if include else "AUTOCOMMIT")
            row = await writes.get(connection, caller, consumer_id)
            possible = await membership.of_consumer(connection, caller, consumer_id) if "audiences" in include else []
            orders = await _orders_member(connection, caller, consumer_id) if "orders" in include else b""
        audiences, headers = b"", dict[str, str]()
        if "audiences" in include:
            # Dynamic ones follow the index; no connection is held while it answers.
            audiences, headers = await reads.audiences(request, state, caller, consumer_id, possible)
        body = consumer_json(row)[:-1] + audiences + orders + b"}"
        tag = weak_etag(body) if include else etag(row.version)
        if is_none_match(tags(request, "if-none-match"), tag):
            return Answer(304, b"", headers | {"ETag": tag}).response()
        return Answer(200, body, headers | {"ETag": tag}).response()

    @get("/", opt=INDEXED, summary="List consumers")
    async def page(
        self, request: Request[Any, Any, Any], asked: ListParameters, caller: Caller, state: State
    ) -> Response[ConsumerPage]:
        return (await reads.page(request, state, caller, asked)).response()

    @get("/search", opt=INDEXED, summary="Search consumers, best match first")
    async def search(
        self, request: Request[Any, Any, Any], asked: SearchParameters, caller: Caller, state: State
    ) -> Response[SearchPage]:
        return (await reads.search(request, state, caller, asked)).response()


def _answer(row: ConsumerRow, status: int = 200) -> Answer:
    return Answer(status, consumer_json(row), {"ETag": etag(row.version)})


def _answers(rows: list[ConsumerRow], status: int) -> Answer:
    return Answer(status, array([consumer_json(row) for row in rows]))


async def _orders_member(connection: AsyncConnection, caller: Caller, consumer_id: str) -> bytes:
    return b',"orders":' + msgspec.json.encode(await newest(connection, caller, consumer_id, NEWEST_ORDERS))
