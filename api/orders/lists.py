"""Pages of orders, newest first. Read from PostgreSQL, so always current."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.cursors import Cursors
from api.error_codes import ErrorCode
from api.errors import no_match
from api.keyset import newest_first
from api.orders.rows import COLUMNS, order_of
from api.orders.schemas import Order, OrderListParameters, OrderPage, OrderSortField

LONG_BYTES = "coalesce(octet_length(o.items::text), 0) + coalesce(octet_length(o.metadata::text), 0)"
SELECT = f"SELECT {COLUMNS}, {LONG_BYTES} AS long_bytes FROM orders o WHERE o.environment_id = :environment_id"
CONDITIONS = {
    "consumer_id": "o.consumer_id = :consumer_id",
    "external_id": "o.external_id = :external_id",
    "status": "o.status = :status",
    "placed_after": "o.placed_at >= :placed_after",
    "placed_before": "o.placed_at < :placed_before",
    "updated_after": "o.updated_at >= :updated_after",
    "updated_before": "o.updated_at < :updated_before",
}
"""Condition of each filter parameter."""
KEYS: dict[OrderSortField, tuple[str, str]] = {
    "placedAt": ("o.placed_at", "o.id"),
    "updatedAt": ("o.updated_at", "o.id"),
}
"""The columns of each order, newest first."""


LOOK_UP = sa.text(
    f"SELECT {COLUMNS} FROM orders o WHERE o.environment_id = :environment_id AND o.external_id = :external_id"
)


async def look_up(connection: AsyncConnection, caller: Caller, external_id: str) -> Order:
    """Read the order with an external id.

    Raises:
        Problem: 404 if the environment has no such order.
    """
    values = {"environment_id": caller.environment_id, "external_id": external_id}
    row = (await connection.execute(LOOK_UP, values)).one_or_none()
    if row is None:
        raise no_match("Order", ErrorCode.ORDER_NOT_FOUND)
    return order_of(row)


async def page(connection: AsyncConnection, caller: Caller, parameters: OrderListParameters) -> OrderPage:
    """Return a page.

    Raises:
        Problem: 400 for a damaged or expired cursor, or a cursor of another list.
    """
    filters = {name: value for name in CONDITIONS if (value := getattr(parameters, name)) is not None}
    rows, info = await newest_first(
        connection,
        " AND ".join([SELECT, *(CONDITIONS[name] for name in filters)]),
        filters | {"environment_id": caller.environment_id},
        KEYS[parameters.order()],
        parameters.paging(),
        Cursors(caller.seal, parameters.kind, parameters.list_parameters(), caller.environment_id),
    )
    return OrderPage([order_of(row) for row in rows], info)
