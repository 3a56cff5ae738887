"""The orders' endpoints (contract.md §3)."""

from litestar import Controller, Response, delete, get, post, put
from litestar.datastructures import State

from api.answers import Answer, created, location, ok
from api.auth import Caller
from api.drafts import BatchDraft, ObjectDraft
from api.orders import lists, writes
from api.orders.schemas import Order, OrderCreate, OrderListParameters, OrderPage, OrderUpdate
from api.route_options import route_options
from api.transactions import Transaction

READ = route_options("read:orders", "reads")
WRITE = route_options("write:orders", "writes")
WRITE_BATCH = route_options("write:orders", "batch", batch_key="orders")


class OrderController(Controller):
    path = "/orders"
    tags = ("Orders",)

    @post("/", opt=WRITE, summary="Create an order")
    async def create(
        self, payload: ObjectDraft[OrderCreate], caller: Caller, transaction: Transaction
    ) -> Response[Order]:
        return await transaction.run(writes.create, caller, payload, render=_created, explain=writes.explain_conflict)

    @post("/batch", opt=WRITE_BATCH, summary="Create up to 500 orders, all or none")
    async def create_batch(
        self, payload: BatchDraft[OrderCreate], caller: Caller, transaction: Transaction
    ) -> Response[list[Order]]:
        return await transaction.run(
            writes.create, caller, payload, render=_created_batch, explain=writes.explain_conflict
        )

    @get("/", opt=READ, summary="List orders, newest first")
    async def page(self, parameters: OrderListParameters, caller: Caller, state: State) -> Response[OrderPage]:
        async with state.budget.connection(caller) as connection:
            return ok(await lists.page(connection, caller, parameters)).response()

    @get("/{order_id:str}", opt=READ, summary="Get an order")
    async def fetch(self, order_id: str, caller: Caller, state: State) -> Response[Order]:
        async with state.budget.connection(caller) as connection:
            return ok(await writes.get(connection, caller, order_id)).response()

    @put("/{order_id:str}", opt=WRITE, summary="Change an order")
    async def update(
        self, order_id: str, payload: ObjectDraft[OrderUpdate], caller: Caller, transaction: Transaction
    ) -> Response[Order]:
        return await transaction.run(writes.update, caller, order_id, payload, render=ok)

    @delete("/{order_id:str}", opt=WRITE, status_code=200, summary="Delete an order")
    async def remove(self, order_id: str, caller: Caller, transaction: Transaction) -> Response[Order]:
        return await transaction.run(writes.delete, caller, order_id, render=ok)


def _created(orders: list[Order]) -> Answer:
    [order] = orders
    return created(order, location("orders", order.id), [order.consumer_id])


def _created_batch(orders: list[Order]) -> Answer:
    return created(orders, consumer_ids=list({order.consumer_id for order in orders}))
