"""Values of orders: the part of an order in the consumer's `totalOrderValue` (contract.md §3).

The column `orders.value` has the same definition. The API needs the value before the write, to check the total.
"""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from api.orders.schemas import OrderCreate

TOTAL_MAX = Decimal(90_000_000_000_000)
TOTAL_EXCEEDED = f"Would raise the consumer's totalOrderValue above the maximum of {TOTAL_MAX}"

COUNTING = frozenset({"CREATED", "COMPLETED"})
"""The states of counted orders."""


def value_of(order: OrderCreate) -> Decimal:
    base = order.amount if order.base_amount is None else order.base_amount
    if order.status not in COUNTING or not order.amount:
        return Decimal(0)
    with localcontext(prec=60) as context:
        context.rounding = ROUND_HALF_EVEN
        return (base * (order.amount - order.refunded_amount) / order.amount).quantize(Decimal("0.0001"))
