"""Create, read and change orders over HTTP, and read the totals of their consumer."""

import re
from decimal import Decimal
from typing import Any

from tests.api.resources import create
from tests.service import Account

Fields = dict[str, Any]


def create_order(account: Account, consumer_id: str, **fields: Any) -> Fields:
    """Create an order, of amount 10 unless `fields` has an amount."""
    return create(account.live, "/orders", **({"consumerId": consumer_id, "amount": 10} | fields))


def read_order(account: Account, order_id: str) -> Fields:
    response = account.live.get(f"/orders/{order_id}")
    assert response.status_code == 200, response.text
    content: Fields = response.json()
    return content


def change_order(account: Account, order_id: str, **fields: Any) -> Fields:
    response = account.live.put(f"/orders/{order_id}", json=fields)
    assert response.status_code == 200, response.text
    content: Fields = response.json()
    return content


def without_updated_at(content: Fields) -> Fields:
    """Return an order or an audience without `updatedAt`."""
    return {name: value for name, value in content.items() if name != "updatedAt"}


def written_totals(account: Account, consumer_id: str) -> tuple[int, str, str | None]:
    """Read a consumer's totals: number of orders, the order value as the JSON text has it, time of the last order."""
    response = account.live.get(f"/consumers/{consumer_id}")
    [value] = re.findall(r'"totalOrderValue":([^,]+)', response.text)
    return response.json()["totalOrders"], value, response.json()["lastOrderAt"]


def order_totals(account: Account, consumer_id: str) -> tuple[int, Decimal, str | None]:
    """Read a consumer's totals, the order value as a number."""
    number, value, last = written_totals(account, consumer_id)
    return number, Decimal(value), last
