"""The orders' endpoints (contract.md §3)."""

from typing import Any

from litestar import Controller, Request, post

from api.auth import Caller
from api.orders import writes
from api.orders.schemas import NewOrder, Order
from api.transactions import Transactions
from api.validation import JSONBody


class OrderController(Controller):
    path = "/orders"
    tags = ("Orders",)
    opt = {"scope": "write:orders"}  # noqa: RUF012 (Litestar's way)

    @post("/", dto=JSONBody, return_dto=None, summary="Create an order")
    async def create(
        self, request: Request[Any, Any, Any], data: NewOrder, caller: Caller, transactions: Transactions
    ) -> Order:
        created = await transactions.run(request, lambda c: writes.create(c, caller, [data], batch=False))
        return created[0]

    @post("/batch", dto=JSONBody, return_dto=None, opt={"batch": "orders"}, summary="Create up to 500 orders")
    async def create_batch(
        self, request: Request[Any, Any, Any], data: list[NewOrder], caller: Caller, transactions: Transactions
    ) -> list[Order]:
        return await transactions.run(request, lambda c: writes.create(c, caller, data, batch=True))
