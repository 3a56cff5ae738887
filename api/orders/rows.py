"""Rows of `orders`: the columns read, and the conversion to the API's type and back."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from api.orders.schemas import Order, OrderItem
from infra.order_items import stored_quantity
from infra.wire import raw, time

COLUMNS = """o.id, o.consumer_id, o.external_id, o.status, o.amount::text, o.refunded_amount::text, o.currency_code,
    o.base_amount::text, o.items::text, o.metadata::text, o.placed_at, o.created_at, o.updated_at"""


class _StoredItem(msgspec.Struct, rename="camel", kw_only=True):
    """A line of an order, its values as JSON. jsonb does not keep the order of the contract; these fields do."""

    product_id: msgspec.Raw
    variant_id: msgspec.Raw = msgspec.Raw(b"null")
    quantity: msgspec.Raw
    unit_amount: msgspec.Raw = msgspec.Raw(b"null")
    exact_quantity: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


encode = msgspec.json.Encoder(decimal_format="string").encode
_items = msgspec.json.Decoder(list[_StoredItem]).decode


def stored_items(items: Sequence[OrderItem] | None) -> list[dict[str, Any]] | None:
    """Return the lines of an order as they are stored."""
    return None if items is None else [_stored(item) for item in items]


def _stored(item: OrderItem) -> dict[str, Any]:
    return {
        "productId": item.product_id,
        "variantId": item.variant_id,
        **stored_quantity(item.quantity),
        "unitAmount": item.unit_amount,
    }


def _shown_items(text: str) -> msgspec.Raw:
    lines = _items(text)
    for line in lines:
        if line.exact_quantity is not msgspec.UNSET:
            line.quantity, line.exact_quantity = line.exact_quantity, msgspec.UNSET
    return msgspec.Raw(encode(lines))


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
        items=row.items and _shown_items(row.items),
        metadata=raw(row.metadata),
        placed_at=time(row.placed_at),
        created_at=time(row.created_at),
        updated_at=time(row.updated_at),
    )
