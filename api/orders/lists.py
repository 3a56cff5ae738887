"""Pages of orders, newest first, from PostgreSQL: always current."""

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.errors import Fault, invalid
from api.orders.schemas import OrderListParameters, OrderPage
from api.orders.writes import COLUMNS, order_of

PLACE = 2
"""Sort values of an order: when it was placed, and its id."""


async def page(connection: AsyncConnection, caller: Caller, asked: OrderListParameters) -> OrderPage:
    """One page.

    Raises:
        Problem: 400 for a cursor that is damaged, expired or of another list.
    """
    question = msgspec.json.encode(["orders", caller.environment_id, asked.question()])
    window = asked.window()
    statement, values = _statement(caller, asked)
    if place := window.place(question, PLACE):
        statement += f" AND (o.placed_at, o.id) {'>' if window.backward else '<'} (:placed_at, :id)"
        values |= {"placed_at": _moment(place[0], "before" if window.backward else "after"), "id": place[1]}
    direction = "ASC" if window.backward else "DESC"
    statement += f" ORDER BY o.placed_at {direction}, o.id {direction} LIMIT :size"
    rows = [order_of(row) for row in await connection.execute(sa.text(statement), values | {"size": window.size + 1})]
    more = len(rows) > window.size
    rows = rows[: window.size]
    if window.backward:
        rows.reverse()
    return OrderPage(rows, window.info(question, [[row.placed_at, row.id] for row in rows], more=more))


def _statement(caller: Caller, asked: OrderListParameters) -> tuple[str, dict[str, Any]]:
    conditions = {
        "consumer_id": "o.consumer_id = :consumer_id",
        "status": "o.status = :status",
        "placed_after": "o.placed_at >= :placed_after",
        "placed_before": "o.placed_at < :placed_before",
    }
    given = {name: value for name in conditions if (value := getattr(asked, name)) is not None}
    clauses = ["o.environment_id = :environment_id", *(conditions[name] for name in given)]
    return (
        f"SELECT {COLUMNS} FROM orders o WHERE {' AND '.join(clauses)}",
        given | {"environment_id": caller.environment_id},
    )


def _moment(text: Any, name: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise invalid(Fault(name, "Invalid cursor")) from None
