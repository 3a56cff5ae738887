"""Recompute the totals of consumers from their orders (contract.md §3)."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any, LiteralString

from tests.database.conftest import Environment

COUNTING = ("CREATED", "COMPLETED")
ORDERS: LiteralString = """
    SELECT c.id, o.status, o.amount, o.refunded_amount, o.base_amount, o.placed_at
    FROM consumers c LEFT JOIN orders o ON o.consumer_id = c.id WHERE c.environment_id = %s"""
TOTALS: LiteralString = """
    SELECT id, total_orders, total_order_value, last_order_at FROM consumers WHERE environment_id = %s"""

Totals = tuple[int, Decimal, datetime | None]


def order_value(status: str, amount: Decimal, refunded: Decimal, base: Decimal) -> Decimal:
    """Return an order's value by the contract: base × (amount - refunded) / amount, half-even to 4 decimals."""
    if status not in COUNTING or not amount:
        return Decimal(0)
    with localcontext(prec=100) as context:
        context.rounding = ROUND_HALF_EVEN
        # The exact quotient is rounded once; numerator and denominator are multiples of 1/10000.
        exact = base * (amount - refunded) / amount
        return exact.quantize(Decimal("0.0001"))


def recomputed(rows: Iterable[tuple[Any, ...]]) -> dict[str, Totals]:
    totals: dict[str, Totals] = {}
    for consumer, status, amount, refunded, base, placed_at in rows:
        number, value, newest = totals.get(consumer, (0, Decimal(0), None))
        if status in COUNTING:
            value += order_value(status, amount, refunded, base)
            newest = max(newest or datetime.min.replace(tzinfo=UTC), placed_at)
            number += 1
        totals[consumer] = (number, value, newest)
    return totals


def assert_totals_are_recomputed(environment: Environment) -> None:
    stored = {row[0]: row[1:] for row in environment.rows(TOTALS, environment.id)}
    assert stored == recomputed(environment.rows(ORDERS, environment.id))
