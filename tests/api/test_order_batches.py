"""Batches of orders: all or nothing, response in request order, each fault with the index of the item."""

from typing import Any

import httpx
import pytest

from tests.api.resources import count_rows, create, faults
from tests.service import Account

LIMIT = 500


@pytest.fixture
def buyers(account: Account) -> list[str]:
    return [create(account.live, externalId=name)["id"] for name in ("b0", "b1")]


def send(account: Account, body: Any) -> httpx.Response:
    return account.live.post("/orders/batch", json=body)


@pytest.mark.parametrize("wrapped", [False, True])
def test_batch_response_keeps_the_request_order(
    account: Account,
    buyers: list[str],
    wrapped: bool,  # noqa: FBT001
) -> None:
    orders = [{"consumerId": buyers[n % 2], "amount": n, "externalId": str(n)} for n in range(LIMIT)]
    response = send(account, {"orders": orders} if wrapped else orders)
    assert response.status_code == 201
    assert [order["externalId"] for order in response.json()] == [order["externalId"] for order in orders]
    ids = [order["id"] for order in response.json()]
    assert ids == sorted(ids)
    consumers = [account.live.get(f"/consumers/{buyer}").json() for buyer in buyers]
    assert [(one["totalOrders"], one["totalOrderValue"]) for one in consumers] == [(250, 62250), (250, 62500)]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("item", [{}, None, {"amount": "wrong"}])
def test_batch_of_more_than_500_is_refused(account: Account, item: Any, wrapped: bool) -> None:  # noqa: FBT001
    body = [item] * (LIMIT + 1)
    response = send(account, {"orders": body} if wrapped else body)
    assert response.status_code == 400
    assert response.json()["error"] == "Max batch size is 500"


@pytest.mark.parametrize("body", [[], {"orders": []}])
def test_empty_batch_returns_an_empty_array(account: Account, body: Any) -> None:
    response = send(account, body)
    assert (response.status_code, response.text) == (201, "[]")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"orders"}),
        ({"orders": None}, {"orders"}),
        ({"orders": {"amount": 1}}, {"orders"}),
        ({"consumers": []}, {"consumers", "orders"}),
        ({"orders": [], "dryRun": True}, {"dryRun"}),
        (5, {"orders"}),
        ("[]", {"orders"}),
    ],
)
def test_body_that_is_not_a_batch_is_refused(account: Account, body: Any, fields: set[str]) -> None:
    assert faults(send(account, body)).keys() == fields


def test_every_faulty_item_is_listed_and_nothing_is_stored(account: Account, buyers: list[str]) -> None:
    right = {"consumerId": buyers[0], "amount": 1}
    body = [right, 5, None, right | {"amount": -1, "status": "?"}, {"amount": 1}, right | {"totl": 1}, [], right]
    expected = {"[1]", "[2]", "[3].amount", "[3].status", "[4].consumerId", "[5].totl", "[6]"}
    assert faults(send(account, body)).keys() == expected
    assert count_rows(account, "orders") == 0


def test_database_faults_name_their_item_and_nothing_is_stored(account: Account, buyers: list[str]) -> None:
    right = {"consumerId": buyers[0], "amount": 1}
    assert send(account, [right | {"externalId": "taken"}]).status_code == 201
    body = [
        right | {"externalId": "twin"},
        right | {"externalId": "taken"},
        {"consumerId": "cons_x", "amount": 1},
        right | {"externalId": "twin"},
        {"consumer": {"email": "nobody@example.com"}, "amount": 1},
        right,
    ]
    assert faults(send(account, body)) == {
        "[1].externalId": "External ID already exists",
        "[2].consumerId": "Unknown consumer: create the consumer first",
        "[3].externalId": "Same as [0]",
        "[4].consumer": "Unknown consumer: create the consumer first",
    }
    assert count_rows(account, "orders") == 1
    assert account.live.get(f"/consumers/{buyers[0]}").json()["totalOrders"] == 1
