"""Upserts of orders, and batches of orders in which valid items are stored although others have faults."""

from typing import Any

import pytest

from tests.api.resources import count_rows, create, faults
from tests.api.test_upserts import statuses
from tests.service import Account

PATH = "/orders/batch/upsert"


@pytest.fixture
def buyer(account: Account) -> str:
    return str(create(account.live, externalId="b0")["id"])


def total(account: Account, buyer: str) -> tuple[int, float]:
    consumer = account.live.get(f"/consumers/{buyer}").json()
    return consumer["totalOrders"], consumer["totalOrderValue"]


def test_single_upsert_creates_changes_and_keeps(account: Account, buyer: str) -> None:
    client = account.live
    body = {"externalId": "o-1", "consumer": {"externalId": "b0"}, "amount": "149.99", "metadata": {"a": 1, "b": None}}
    made = client.post("/orders/upsert", json=body)
    assert made.status_code == 201
    assert made.headers["Location"].endswith(made.json()["id"])
    assert client.get(f"/orders/{made.json()['id']}").json() == made.json()
    again = client.post("/orders/upsert", json=body)
    assert (again.status_code, again.text) == (200, made.text)
    changed = client.post("/orders/upsert", json={"externalId": "o-1", "refundedAmount": 49.99, "status": "REFUNDED"})
    assert changed.status_code == 200
    expected = {"id": made.json()["id"], "refundedAmount": "49.99", "status": "REFUNDED", "amount": "149.99"}
    assert changed.json().items() >= expected.items()
    assert total(account, buyer) == (0, 0)
    assert faults(client.post("/orders/upsert", json={"amount": 1, "consumerId": buyer})).keys() == {"externalId"}
    assert faults(client.post("/orders/upsert", json={"externalId": "o-2"})).keys() == {"amount"}
    assert faults(client.post("/orders/upsert", json={"externalId": "o-2", "amount": 1})).keys() == {"consumerId"}
    other = create(client, externalId="b1")["id"]
    for field, reference in (("consumerId", other), ("consumer", {"externalId": "b1"})):
        response = client.post("/orders/upsert", json={"externalId": "o-1", field: reference})
        assert faults(response).keys() == {field}


def test_batch_of_upserts_moves_the_totals(account: Account, buyer: str) -> None:
    client = account.live
    items: list[Any] = [{"externalId": f"o-{n}", "consumerId": buyer, "amount": n} for n in range(1, 5)]
    made = client.post(PATH, json=items)
    assert made.status_code == 200
    assert statuses(made.json()) == ["created"] * 4
    assert total(account, buyer) == (4, 10)
    outbox = count_rows(account, "outbox")
    assert statuses(client.post(PATH, json=items).json()) == ["unchanged"] * 4
    assert count_rows(account, "outbox") <= outbox
    items[0] |= {"amount": "100.5", "items": [{"productId": "p", "quantity": 1}]}
    items.append({"externalId": "o-9", "consumer": {"externalId": "b0"}, "amount": 1})
    changed = client.post(PATH, json={"orders": items}, headers={"Prefer": "return=minimal"})
    assert statuses(changed.json()) == ["updated", "unchanged", "unchanged", "unchanged", "created"]
    assert not any("order" in result for result in changed.json()["results"])
    assert total(account, buyer) == (5, 110.5)
    assert statuses(client.post(PATH, json=items).json()) == ["unchanged"] * 5


def test_faults_abort_a_batch_or_fail_alone(account: Account, buyer: str) -> None:
    client = account.live
    items: list[Any] = [
        {"externalId": "o-1", "consumerId": buyer, "amount": 1},
        {"externalId": "o-2", "consumerId": buyer, "amount": "1,5"},
        {"externalId": "o-3", "consumerId": "cons_x", "amount": 1},
        {"externalId": "o-1", "amount": 2},
        {"externalId": "o-4", "consumerId": buyer, "amount": "80000000000000"},
        {"externalId": "o-5", "consumerId": buyer, "amount": "80000000000000"},
        {"consumerId": buyer, "amount": 1},
    ]
    refused = faults(client.post(PATH, json=items))
    assert {"[1].amount", "[2].consumerId", "[3].externalId", "[6].externalId"} <= refused.keys()
    assert count_rows(account, "orders") == 0
    stored = client.post(f"{PATH}?onError=continue", json=items)
    assert stored.status_code == 207
    assert statuses(stored.json()) == ["created", "failed", "failed", "failed", "created", "failed", "failed"]
    assert stored.json()["results"][5]["errors"][0]["code"] == "out_of_range"
    assert total(account, buyer) == (2, 80000000000001)
    plain = client.post("/orders/batch?onError=continue", json=[items[0], {"consumerId": buyer, "amount": 3}, items[2]])
    assert plain.status_code == 207
    assert statuses(plain.json()) == ["failed", "created", "failed"]
    codes = [[error["code"] for error in result["errors"]] for result in plain.json()["results"]]
    assert codes == [["external_id_taken"], [], ["consumer_not_found"]]


def test_orders_that_fail_reserve_nothing(account: Account, buyer: str) -> None:
    client, most = account.live, "80000000000000"
    plain: list[Any] = [
        {"externalId": "a", "consumerId": buyer, "amount": most},
        {"externalId": "b", "consumerId": buyer, "amount": most},
        {"externalId": "b", "consumerId": buyer, "amount": 1},
        {"externalId": "b", "consumerId": buyer, "amount": 2},
        {"externalId": "c", "consumerId": "cons_x", "amount": 1},
        {"externalId": "c", "consumerId": buyer, "amount": 1},
    ]
    made = client.post("/orders/batch?onError=continue", json=plain).json()
    assert [status[0] for status in statuses(made)] == [*"cfcffc"]
    assert [error["message"] for error in made["results"][3]["errors"]] == ["Same as [2]"]
    upserts = [
        plain[4] | {"externalId": "d"},
        plain[1] | {"externalId": "d"},
        plain[5] | {"externalId": "d"},
        plain[5] | {"externalId": "d"},
        {"externalId": "b", "refundedAmount": 3},
        {"externalId": "b", "amount": 3},
        {"externalId": "b", "amount": 4},
    ]
    stored = client.post(f"{PATH}?onError=continue", json=upserts).json()
    assert [status[0] for status in statuses(stored)] == [*"ffcffuf"]
    assert total(account, buyer) == (4, 80000000000005)


def test_total_of_a_batch_counts_after_the_batch(account: Account, buyer: str) -> None:
    new = {"consumerId": buyer, "amount": "80000000000000"}
    items = [{"externalId": "a", **new}, {"externalId": "b", **new}]
    assert statuses(account.live.post(PATH, json=items[:1]).json()) == ["created"]
    stored = account.live.post(PATH, json=[items[1], {"externalId": "a", "amount": 1}])
    assert statuses(stored.json()) == ["created", "updated"]
    assert total(account, buyer) == (2, 80000000000001)
    refused = account.live.post(PATH, json=[{"externalId": "a", "amount": 2}, {"externalId": "c", **new}])
    assert faults(refused).keys() == {"[1].amount"}
