"""Pages of orders, newest first, from PostgreSQL: always current."""

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.keyset import newest_first
from api.orders.rows import COLUMNS, order_of
from api.orders.schemas import OrderListParameters, OrderPage

CONDITIONS = {
    "consumer_id": "o.consumer_id = :consumer_id",
    "status": "o.status = :status",
    "placed_after": "o.placed_at >= :placed_after",
    "placed_before": "o.placed_at < :placed_before",
}


async def page(connection: AsyncConnection, caller: Caller, asked: OrderListParameters) -> OrderPage:
    """One page.

    Raises:
        Problem: 400 for a cursor that is damaged, expired or of another list.
    """
    question = msgspec.json.encode(["orders", caller.environment_id, asked.question()])
    given = {name: value for name in CONDITIONS if (value := getattr(asked, name)) is not None}
    clauses = ["o.environment_id = :environment_id", *(CONDITIONS[name] for name in given)]
    rows, info = await newest_first(
        connection,
        f"SELECT {COLUMNS} FROM orders o WHERE {' AND '.join(clauses)}",
        given | {"environment_id": caller.environment_id},
        ("o.placed_at", "o.id"),
        asked.window(),
        question,
    )
    return OrderPage([order_of(row) for row in rows], info)
