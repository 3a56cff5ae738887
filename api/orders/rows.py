"""Rows of `orders`: the columns read, and the conversion to the API's type."""

from typing import Any

import msgspec
import sqlalchemy as sa

from api.orders.schemas import Order, OrderItem
from infra.wire import raw, time

COLUMNS = """o.id, o.consumer_id, o.external_id, o.status, o.amount::text, o.refunded_amount::text, o.currency_code,
    o.base_amount::text, o.items::text, o.metadata::text, o.placed_at, o.created_at, o.updated_at"""

encode = msgspec.json.Encoder(decimal_format="string").encode
# jsonb does not keep the order of keys: decoding and encoding restores the order of the contract.
_items = msgspec.json.Decoder(list[OrderItem]).decode


def order_of(row: sa.Row[Any]) -> Order:
    return Order(
        id=row.id,
        consumer_id=row.consumer_id,
        external_id=row.external_id,
        status=row.status,
        amount=row.amount,
        refunded_amount=row.refunded_amount,
        currency_code=row.currency_code,
        base_amount=row.base_amount,
        items=row.items and msgspec.Raw(encode(_items(row.items))),
        metadata=raw(row.metadata),
        placed_at=time(row.placed_at),
        created_at=time(row.created_at),
        updated_at=time(row.updated_at),
    )
