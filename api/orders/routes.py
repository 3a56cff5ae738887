"""The orders' endpoints (contract.md §3)."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from litestar import Controller, Response, delete, get, post, put
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec

from api import batch_results, consistency
from api.answers import Answer, created, location, ok
from api.auth import Caller
from api.batch_results import Outcome
from api.drafts import BatchDraft, BatchParameters, ObjectDraft
from api.orders import batches, lists, writes
from api.orders.results import OrderResults
from api.orders.schemas import (
    Order,
    OrderBatchUpsertParameters,
    OrderCreate,
    OrderListParameters,
    OrderLookupParameters,
    OrderPage,
    OrderUpdate,
    OrderUpsert,
    OrderUpsertParameters,
)
from api.request import AnyRequest
from api.route_options import route_options
from api.transactions import Transaction

READ = route_options("read:orders", "reads")
WRITE = route_options("write:orders", "writes")
WRITE_BATCH = route_options("write:orders", "batch", batch_key="orders")


OUTCOMES: dict[int, ResponseSpec] = {HTTPStatus.MULTI_STATUS: ResponseSpec(OrderResults, generate_examples=False)}


class OrderController(Controller):
    path = "/orders"
    tags = ("Orders",)

    @post("/", opt=WRITE, summary="Create an order")
    async def create(
        self, payload: ObjectDraft[OrderCreate], caller: Caller, transaction: Transaction
    ) -> Response[Order]:
        return await transaction.run(writes.create, caller, payload, render=_created, explain=writes.explain_conflict)

    @post("/batch", opt=WRITE_BATCH, summary="Create up to 500 orders", responses=OUTCOMES)
    async def create_batch(
        self,
        request: AnyRequest,
        payload: BatchDraft[OrderCreate],
        parameters: BatchParameters,
        caller: Caller,
        transaction: Transaction,
    ) -> Response[list[Order]]:
        if parameters.on_error == "continue":
            render = _outcomes(request, HTTPStatus.MULTI_STATUS)
            return await transaction.run(batches.create, caller, payload, render=render)
        return await transaction.run(
            writes.create, caller, payload, render=_created_batch, explain=writes.explain_conflict
        )

    @post(
        "/upsert",
        opt=WRITE,
        summary="Change the order with an external id, or create the order",
        responses={HTTPStatus.OK: ResponseSpec(Order, generate_examples=False)},
    )
    async def upsert(
        self,
        payload: ObjectDraft[OrderUpsert],
        parameters: OrderUpsertParameters,
        caller: Caller,
        transaction: Transaction,
    ) -> Response[Order]:
        del parameters
        work = partial(batches.upsert, go_on=False)
        return await transaction.run(work, caller, payload, render=_upserted)

    @post(
        "/batch/upsert",
        opt=WRITE_BATCH,
        status_code=HTTPStatus.OK,
        summary="Change or create up to 500 orders, each by the external id",
        responses=OUTCOMES,
    )
    async def upsert_batch(
        self,
        request: AnyRequest,
        payload: BatchDraft[OrderUpsert],
        parameters: OrderBatchUpsertParameters,
        caller: Caller,
        transaction: Transaction,
    ) -> Response[OrderResults]:
        go_on = parameters.on_error == "continue"
        work = partial(batches.upsert, go_on=go_on)
        render = _outcomes(request, HTTPStatus.MULTI_STATUS if go_on else HTTPStatus.OK)
        return await transaction.run(work, caller, payload, render=render)

    @get("/", opt=READ, summary="List orders, newest first")
    async def page(self, parameters: OrderListParameters, caller: Caller, state: State) -> Response[OrderPage]:
        async with state.budget.connection(caller) as connection:
            return ok(await lists.page(connection, caller, parameters)).response()

    @get("/lookup", opt=READ, summary="Get the order with an external id")
    async def lookup(self, parameters: OrderLookupParameters, caller: Caller, state: State) -> Response[Order]:
        async with state.budget.connection(caller) as connection:
            return ok(await lists.look_up(connection, caller, parameters.external_id)).response()

    @get("/{order_id:str}", opt=READ, summary="Get an order")
    async def fetch(self, order_id: str, caller: Caller, state: State) -> Response[Order]:
        async with state.budget.connection(caller) as connection:
            return ok(await writes.get(connection, caller, order_id)).response()

    @put("/{order_id:str}", opt=WRITE, summary="Change an order")
    async def update(
        self, order_id: str, payload: ObjectDraft[OrderUpdate], caller: Caller, transaction: Transaction
    ) -> Response[Order]:
        return await transaction.run(writes.update, caller, order_id, payload, render=_answer)

    @delete("/{order_id:str}", opt=WRITE, status_code=200, summary="Delete an order")
    async def remove(self, order_id: str, caller: Caller, transaction: Transaction) -> Response[Order]:
        return await transaction.run(writes.delete, caller, order_id, render=_answer)


def _outcomes(request: AnyRequest, status: HTTPStatus) -> Callable[[list[Outcome]], Answer]:
    minimal = consistency.preferences_of(request).minimal

    def render(outcomes: list[Outcome]) -> Answer:
        ids = list({outcome.consumer_id for outcome in outcomes if outcome.consumer_id})
        return batch_results.answer(outcomes, "order", status=status, minimal=minimal, consumer_ids=ids)

    return render


def _upserted(outcomes: list[Outcome]) -> Answer:
    [outcome] = outcomes
    assert outcome.id, "a fault is a 400"
    ids = [outcome.consumer_id] if outcome.consumer_id else []
    if outcome.status == "created":
        return Answer(HTTPStatus.CREATED, outcome.body, location("orders", outcome.id), consumer_ids=ids)
    return Answer(HTTPStatus.OK, outcome.body, consumer_ids=ids)


def _answer(order: Order) -> Answer:
    return ok(order, [order.consumer_id])


def _created(orders: list[Order]) -> Answer:
    [order] = orders
    return created(order, location("orders", order.id), [order.consumer_id])


def _created_batch(orders: list[Order]) -> Answer:
    return created(orders, consumer_ids=list({order.consumer_id for order in orders}))
