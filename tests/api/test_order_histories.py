"""Totals after any history of orders over HTTP equal a recomputation (contract.md §3)."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.api.orders import create_order, order_totals
from tests.api.resources import create
from tests.database.recomputed_totals import COUNTING, order_value
from tests.service import Account

STATUSES = ["CREATED", "COMPLETED", "CANCELLED", "REFUNDED"]
WRITERS, TURNS = 10, 15

Fields = dict[str, Any]


def recomputed(orders: list[Fields]) -> tuple[int, Decimal, str | None]:
    """Compute the totals from orders as the API shows them."""
    counting = [order for order in orders if order["status"] in COUNTING]
    names = ("amount", "refundedAmount", "baseAmount")
    value = sum(
        (order_value(order["status"], *(Decimal(order[name]) for name in names)) for order in counting), Decimal(0)
    )
    return len(counting), value, max((order["placedAt"] for order in counting), default=None)


class History:
    """A client that creates, changes and deletes orders at random, and remembers the responses."""

    def __init__(self, account: Account, consumers: list[str], seed: int) -> None:
        self._account, self._consumers, self._random = account, consumers, random.Random(seed)
        self.orders: dict[str, Fields] = {}

    def step(self) -> None:
        known = list(self.orders)
        steps: list[Callable[[], None]] = [self._create, self._create_batch]
        if known:
            steps += [self._change, self._change, self._delete, self._delete_newest]
        self._random.choice(steps)()

    def of(self, consumer_id: str) -> list[Fields]:
        return [order for order in self.orders.values() if order["consumerId"] == consumer_id]

    def _create(self) -> None:
        self._remember(self._account.live.post("/orders", json=self._fields()).raise_for_status().json())

    def _create_batch(self) -> None:
        bodies = [self._fields() for _ in range(self._random.randint(0, 5))]
        for made in self._account.live.post("/orders/batch", json=bodies).raise_for_status().json():
            self._remember(made)

    def _change(self) -> None:
        order = self._random.choice(list(self.orders.values()))
        fields = self._fields()
        kept = {"amount", "refundedAmount", "currencyCode", "baseAmount"} if self._random.random() < 0.5 else set()
        dropped = kept | {name for name in ("status", "placedAt") if self._random.random() < 0.5} | {"consumerId"}
        fields = {name: value for name, value in fields.items() if name not in dropped}
        self._remember(self._account.live.put(f"/orders/{order['id']}", json=fields).raise_for_status().json())

    def _delete(self) -> None:
        self._forget(self._random.choice(list(self.orders)))

    def _delete_newest(self) -> None:
        self._forget(max(self.orders, key=lambda known: str(self.orders[known]["placedAt"])))

    def _remember(self, order: Fields) -> None:
        self.orders[order["id"]] = order

    def _forget(self, order_id: str) -> None:
        response = self._account.live.delete(f"/orders/{order_id}").raise_for_status()
        assert response.json() == self.orders.pop(order_id)

    def _fields(self) -> Fields:
        amount = Decimal(self._random.randint(0, 10 ** self._random.randint(1, 12))) / 10_000
        refunded = amount * self._random.randint(0, 4) / 4
        placed = datetime.fromtimestamp(1_700_000_000 + self._random.randint(0, 20), UTC)
        fields = {
            "consumerId": self._random.choice(self._consumers),
            "amount": str(amount),
            "refundedAmount": str(refunded.quantize(Decimal("0.0001"), "ROUND_DOWN")),
            "status": self._random.choice(STATUSES),
            "placedAt": placed.isoformat(),
        }
        if self._random.random() < 0.5:
            return fields | {"currencyCode": "USD", "baseAmount": str(amount)}
        base = Decimal(self._random.randint(0, 10**9)) / 10_000
        return fields | {"currencyCode": "EUR", "baseAmount": str(base)}


@pytest.mark.parametrize("seed", range(3))
def test_totals_equal_a_recomputation_after_any_history(account: Account, seed: int) -> None:
    consumers = [create(account.live)["id"] for _ in range(3)]
    history = History(account, consumers, seed)
    for _ in range(100):
        history.step()
        for one in consumers:
            assert order_totals(account, one) == recomputed(history.of(one))
    listed = account.live.get("/orders", params={"first": 100}).json()["data"]
    newest = sorted(history.orders.values(), key=lambda order: (order["placedAt"], order["id"]), reverse=True)
    assert listed == newest[:100]
    account.settled()
    rows = account.live.get("/consumers").json()["data"]
    assert sorted(row["id"] for row in rows) == sorted(consumers)
    for row in rows:
        number, value, placed = recomputed(history.of(row["id"]))
        assert (row["totalOrders"], row["lastOrderAt"]) == (number, placed)
        assert Decimal(str(row["totalOrderValue"])) == value


def test_totals_are_exact_with_ten_concurrent_writers(account: Account) -> None:
    busy = create(account.live)["id"]
    histories = [History(account, [busy], seed) for seed in range(WRITERS)]

    def write(history: History) -> None:
        for _ in range(TURNS):
            history.step()

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, histories))
    remaining = [order for history in histories for order in history.orders.values()]
    assert order_totals(account, busy) == recomputed(remaining)


def test_concurrent_updates_and_delete_of_an_order_are_safe(account: Account) -> None:
    busy = create(account.live)["id"]

    def compete(number: int) -> httpx.Response:
        if number == WRITERS - 1:
            return account.live.delete(f"/orders/{contested['id']}")
        return account.live.put(f"/orders/{contested['id']}", json={"amount": number, "status": STATUSES[number % 4]})

    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in range(10):
            contested = create_order(account, busy)
            statuses = [response.status_code for response in pool.map(compete, range(WRITERS))]
            assert set(statuses[:-1]) <= {200, 404}
            assert statuses[-1] == 200
            assert order_totals(account, busy) == (0, Decimal(0), None)


def test_orders_during_the_delete_of_their_consumer_never_fail(account: Account) -> None:
    def compete(number: int) -> httpx.Response:
        if number == 0:
            return account.live.delete(f"/consumers/{leaving}")
        if number % 2:
            return account.live.post("/orders", json={"consumerId": leaving, "amount": 1})
        return account.live.put(f"/orders/{known['id']}", json={"amount": number})

    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in range(10):
            leaving = create(account.live)["id"]
            known = create_order(account, leaving)
            responses = list(pool.map(compete, range(WRITERS)))
            assert responses[0].status_code == 200
            assert {response.status_code for response in responses[1::2]} <= {201, 400}
            assert {response.status_code for response in responses[2::2]} <= {200, 404}
    assert account.live.get("/orders").json()["data"] == []
