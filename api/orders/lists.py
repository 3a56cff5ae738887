"""Pages of orders, newest first. Read from PostgreSQL, so always current."""

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.cursors import Cursors
from api.keyset import newest_first
from api.orders.rows import COLUMNS, order_of
from api.orders.schemas import OrderListParameters, OrderPage

LONG_BYTES = "coalesce(octet_length(o.items::text), 0) + coalesce(octet_length(o.metadata::text), 0)"
SELECT = f"SELECT {COLUMNS}, {LONG_BYTES} AS long_bytes FROM orders o WHERE o.environment_id = :environment_id"
CONDITIONS = {
    "consumer_id": "o.consumer_id = :consumer_id",
    "status": "o.status = :status",
    "placed_after": "o.placed_at >= :placed_after",
    "placed_before": "o.placed_at < :placed_before",
}
"""Condition of each filter parameter."""


async def page(connection: AsyncConnection, caller: Caller, parameters: OrderListParameters) -> OrderPage:
    """Return a page.

    Raises:
        Problem: 400 for a damaged or expired cursor, or a cursor of another list.
    """
    list_id = msgspec.json.encode(["orders", caller.environment_id, parameters.list_parameters()])
    filters = {name: value for name in CONDITIONS if (value := getattr(parameters, name)) is not None}
    rows, info = await newest_first(
        connection,
        " AND ".join([SELECT, *(CONDITIONS[name] for name in filters)]),
        filters | {"environment_id": caller.environment_id},
        ("o.placed_at", "o.id"),
        parameters.paging(),
        Cursors(caller.seal, list_id),
    )
    return OrderPage([order_of(row) for row in rows], info)
