"""Orders over HTTP, as a client sends and reads them."""

import re
from decimal import Decimal
from typing import Any

import httpx

from tests.service import Account

Fields = dict[str, Any]


def consumer(account: Account, **fields: Any) -> str:
    answer = account.live.post("/consumers", json=fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def order(account: Account, consumer_id: str, **fields: Any) -> Fields:
    """A new order; of amount 10 unless another is given."""
    answer = account.live.post("/orders", json={"consumerId": consumer_id, "amount": 10} | fields)
    assert answer.status_code == 201, answer.text
    content: Fields = answer.json()
    return content


def read(account: Account, order_id: str) -> Fields:
    answer = account.live.get(f"/orders/{order_id}")
    assert answer.status_code == 200, answer.text
    content: Fields = answer.json()
    return content


def change(account: Account, order_id: str, **fields: Any) -> Fields:
    answer = account.live.put(f"/orders/{order_id}", json=fields)
    assert answer.status_code == 200, answer.text
    content: Fields = answer.json()
    return content


def without_time(content: Fields) -> Fields:
    """An order or audience without the moment of its last change."""
    return {name: value for name, value in content.items() if name != "updatedAt"}


def faults(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 400, answer.text
    return {fault["field"]: fault["message"] for fault in answer.json().get("details", [])}


def totals(account: Account, consumer_id: str) -> tuple[int, Decimal, str | None]:
    """The consumer's totals, its value exactly as the JSON has it."""
    answer = account.live.get(f"/consumers/{consumer_id}")
    [value] = re.findall(r'"totalOrderValue":([^,]+)', answer.text)
    return answer.json()["totalOrders"], Decimal(value), answer.json()["lastOrderAt"]
