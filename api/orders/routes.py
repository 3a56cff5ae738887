"""The orders' endpoints (contract.md §3)."""

from functools import partial
from typing import Any

import msgspec
from litestar import Controller, Request, Response, delete, get, post, put
from litestar.datastructures import State
from sqlalchemy.ext.asyncio import AsyncConnection

from api.answers import Answer
from api.auth import Caller
from api.orders import lists, writes
from api.orders.schemas import NewOrder, Order, OrderChange, OrderListParameters, OrderPage
from api.route_options import route_options
from api.transactions import Transactions
from api.validation import JSONBody, early_faults

READ = route_options("read:orders", "reads")
WRITE = route_options("write:orders", "writes")
BODY = WRITE | {"faults": "with the database's"}
BATCH = BODY | route_options("write:orders", "batch", batch_key="orders")


class OrderController(Controller):
    path = "/orders"
    tags = ("Orders",)

    @post("/", dto=JSONBody, return_dto=None, opt=BODY, summary="Create an order")
    async def create(
        self, request: Request[Any, Any, Any], data: NewOrder, caller: Caller, transactions: Transactions
    ) -> Response[Order]:
        async def work(connection: AsyncConnection, *, look: bool = False) -> Answer:
            [order] = await writes.create(connection, caller, [data], early_faults(request), batch=False, look=look)
            return _answer(order, 201)

        return await transactions.run(request, caller, work, again=partial(work, look=True))

    @post("/batch", dto=JSONBody, return_dto=None, opt=BATCH, summary="Create up to 500 orders, all or none")
    async def create_batch(
        self, request: Request[Any, Any, Any], data: list[NewOrder], caller: Caller, transactions: Transactions
    ) -> Response[list[Order]]:
        async def work(connection: AsyncConnection, *, look: bool = False) -> Answer:
            return _answer(
                await writes.create(connection, caller, data, early_faults(request), batch=True, look=look), 201
            )

        return await transactions.run(request, caller, work, again=partial(work, look=True))

    @get("/", opt=READ, summary="List orders, newest first")
    async def page(self, asked: OrderListParameters, caller: Caller, state: State) -> Response[OrderPage]:
        async with state.engine.connect() as connection:
            return _answer(await lists.page(connection, caller, asked)).response()

    @get("/{order_id:str}", opt=READ, summary="Get an order")
    async def fetch(self, order_id: str, caller: Caller, state: State) -> Response[Order]:
        async with state.engine.connect() as connection:
            return _answer(await writes.get(connection, caller, order_id)).response()

    @put("/{order_id:str}", dto=JSONBody, return_dto=None, opt=BODY, summary="Change an order")
    async def update(
        self,
        request: Request[Any, Any, Any],
        order_id: str,
        data: OrderChange,
        caller: Caller,
        transactions: Transactions,
    ) -> Response[Order]:
        async def work(connection: AsyncConnection) -> Answer:
            return _answer(await writes.update(connection, caller, order_id, data, early_faults(request)))

        return await transactions.run(request, caller, work)

    @delete("/{order_id:str}", opt=WRITE, status_code=200, summary="Delete an order")
    async def remove(
        self, request: Request[Any, Any, Any], order_id: str, caller: Caller, transactions: Transactions
    ) -> Response[Order]:
        async def work(connection: AsyncConnection) -> Answer:
            return _answer(await writes.delete(connection, caller, order_id))

        return await transactions.run(request, caller, work)


def _answer(what: Any, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(what))
