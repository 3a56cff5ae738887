"""Read, change and delete orders, and the resulting totals (contract.md §3)."""

from decimal import Decimal
from typing import Any

import pytest

from tests.api.orders import change_order, create_order, order_totals, read_order, without_updated_at
from tests.api.resources import create, faults
from tests.service import Account

ITEMS = [{"productId": "p", "variantId": None, "quantity": 2, "unitAmount": "3.50"}]
FULL = {
    "amount": "10.50",
    "refundedAmount": "0.5",
    "currencyCode": "EUR",
    "baseAmount": "21.00",
    "externalId": "x1",
    "status": "CREATED",
    "items": ITEMS,
    "metadata": {"a": 1, "b": {"c": [1.5, None, "é"], "d": True}},
    "placedAt": "2024-01-02T03:04:05.006Z",
}
UNKNOWN = "ord_00000000000000000000000000"


@pytest.fixture
def buyer(account: Account) -> str:
    return str(create(account.live, externalId="b1")["id"])


@pytest.fixture
def full(account: Account, buyer: str) -> dict[str, Any]:
    return create_order(account, buyer, **FULL)


def test_order_is_read_back_as_it_was_created(account: Account, full: dict[str, Any]) -> None:
    assert account.live.get(f"/orders/{full['id']}").json() == full
    assert list(read_order(account, full["id"])) == list(full)
    assert {name: full[name] for name in FULL} == FULL


@pytest.mark.parametrize(
    "sent",
    [
        {"externalId": "x2"},
        {"status": "CANCELLED"},
        {"refundedAmount": "10.50"},
        {"amount": "99.9999", "baseAmount": "1"},
        {"baseAmount": "0"},
        {"currencyCode": "JPY", "baseAmount": "3"},
        {"items": []},
        {"items": [{"productId": "q", "variantId": "v", "quantity": 0, "unitAmount": None}]},
        {"placedAt": "1999-12-31T23:59:59.999Z"},
        {"externalId": None},
        {"items": None},
        {"metadata": None},
    ],
    ids=str,
)
def test_update_changes_only_the_fields_sent(account: Account, full: dict[str, Any], sent: dict[str, Any]) -> None:
    changed = change_order(account, full["id"], **sent)
    assert without_updated_at(changed) == without_updated_at(full) | sent
    assert changed["updatedAt"] >= full["updatedAt"]
    assert read_order(account, full["id"]) == changed


def test_empty_update_changes_nothing(account: Account, full: dict[str, Any]) -> None:
    assert without_updated_at(change_order(account, full["id"])) == without_updated_at(full)


def test_omitted_metadata_keeps_its_stored_text(account: Account, full: dict[str, Any]) -> None:
    stored = '{"a": 1.50, "b": 0.10000000000000000000000001}'
    with account.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE orders SET metadata = %s WHERE id = %s", (stored, full["id"]))
    change_order(account, full["id"], status="CANCELLED")
    assert f'"metadata":{stored}' in account.live.get(f"/orders/{full['id']}").text


@pytest.mark.parametrize("currency", ["USD", "EUR"])
def test_sending_back_a_read_resource_changes_nothing(account: Account, buyer: str, currency: str) -> None:
    amounts = {"currencyCode": currency, "baseAmount": FULL["amount"]}
    order = read_order(account, create_order(account, buyer, **FULL | amounts)["id"])
    before = account.live.get(f"/consumers/{buyer}")
    assert without_updated_at(change_order(account, order["id"], **order)) == without_updated_at(order)
    after = account.live.get(f"/consumers/{buyer}")
    assert (after.text, after.headers["ETag"]) == (before.text, before.headers["ETag"])


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"a": 5}, {"a": 5, "b": {"c": 2, "d": 3}}),
        ({"a": None}, {"b": {"c": 2, "d": 3}}),
        ({"b": {"c": None, "e": {"f": None, "g": 1}}}, {"a": 1, "b": {"d": 3, "e": {"g": 1}}}),
        ({"b": [None]}, {"a": 1, "b": [None]}),
        ({"a": {"x": None}}, {"a": {}, "b": {"c": 2, "d": 3}}),
        ({"a": None, "b": None}, {}),
        ({"nobody": None}, {"a": 1, "b": {"c": 2, "d": 3}}),
        (None, None),
    ],
    ids=str,
)
def test_metadata_is_merged(account: Account, buyer: str, patch: Any, expected: Any) -> None:
    made = create_order(account, buyer, metadata={"a": 1, "b": {"c": 2, "d": 3}})
    assert change_order(account, made["id"], metadata=patch)["metadata"] == expected


def test_metadata_limits_apply_to_the_merged_result(account: Account, buyer: str) -> None:
    made = create_order(account, buyer)
    keys = {f"k{number}": "v" for number in range(50)}
    assert change_order(account, made["id"], metadata=keys | {"gone": None})["metadata"] == keys
    response = account.live.put(f"/orders/{made['id']}", json={"metadata": {"one more": 1}, "status": "CANCELLED"})
    assert faults(response).keys() == {"metadata"}
    assert read_order(account, made["id"])["status"] == "COMPLETED"


def test_order_cannot_move_to_another_consumer(account: Account, buyer: str, full: dict[str, Any]) -> None:
    other = create(account.live)["id"]
    assert change_order(account, full["id"], consumerId=buyer)["consumerId"] == buyer
    for wrong in (other, "cons_00000000000000000000000000", "", None, 5):
        response = account.live.put(f"/orders/{full['id']}", json={"consumerId": wrong, "status": "CANCELLED"})
        assert faults(response).keys() == {"consumerId"}
    assert "consumer" in faults(account.live.put(f"/orders/{full['id']}", json={"consumer": {"externalId": "b1"}}))
    assert read_order(account, full["id"])["status"] == "CREATED"


@pytest.mark.parametrize(
    ("fields", "sent", "expected"),
    [
        ({"amount": 10}, {"amount": 12}, {"amount": "12", "baseAmount": "12"}),
        ({"amount": 10}, {"amount": 12, "baseAmount": "12.0"}, {"amount": "12", "baseAmount": "12.0"}),
        ({"amount": 10}, {"amount": 12, "baseAmount": 10}, {"baseAmount"}),
        ({"amount": 10}, {"baseAmount": 11}, {"baseAmount"}),
        ({"amount": 10}, {"currencyCode": "EUR"}, {"baseAmount"}),
        ({"amount": 10}, {"currencyCode": "EUR", "baseAmount": 11}, {"amount": "10", "baseAmount": "11"}),
        ({"amount": 10, "currencyCode": "EUR", "baseAmount": 11}, {"amount": 12}, {"baseAmount"}),
        ({"amount": 10, "currencyCode": "EUR", "baseAmount": 11}, {"amount": "10.0"}, {"baseAmount": "11"}),
        ({"amount": 10, "currencyCode": "EUR", "baseAmount": 11}, {"currencyCode": "JPY"}, {"baseAmount"}),
        ({"amount": 10, "currencyCode": "EUR", "baseAmount": 11}, {"currencyCode": "USD"}, {"baseAmount": "10"}),
        ({"amount": 10, "currencyCode": "EUR", "baseAmount": 11}, {"status": "REFUNDED"}, {"baseAmount": "11"}),
        ({"amount": 10}, {"refundedAmount": "10.0001"}, {"refundedAmount"}),
        ({"amount": 10}, {"refundedAmount": 10}, {"refundedAmount": "10"}),
        ({"amount": 10, "refundedAmount": 5}, {"amount": "4.9999"}, {"refundedAmount"}),
        ({"amount": 10, "refundedAmount": 5}, {"amount": 4, "refundedAmount": 4}, {"refundedAmount": "4"}),
        ({"amount": 10}, {"amount": 0}, {"amount": "0", "baseAmount": "0"}),
    ],
)  # fmt: skip
def test_amounts_must_be_consistent(
    account: Account, buyer: str, fields: dict[str, Any], sent: dict[str, Any], expected: Any
) -> None:
    made = create_order(account, buyer, **fields)
    response = account.live.put(f"/orders/{made['id']}", json=sent)
    if isinstance(expected, set):
        assert faults(response).keys() == expected
        assert read_order(account, made["id"]) == made
    else:
        assert {name: response.json()[name] for name in expected} == expected


@pytest.mark.parametrize(
    "field", ["amount", "consumerId", "status", "refundedAmount", "currencyCode", "baseAmount", "placedAt"]
)
def test_required_fields_cannot_be_cleared(account: Account, full: dict[str, Any], field: str) -> None:
    response = account.live.put(f"/orders/{full['id']}", json={field: None, "externalId": None})
    assert faults(response).keys() == {field}
    assert read_order(account, full["id"]) == full


def test_all_faults_of_an_update_are_listed_at_once(account: Account, full: dict[str, Any]) -> None:
    wrong = {"amount": "x", "status": "DONE", "items": [{"productId": "p"}], "metadata": 1, "placedAt": "soon", "a": 1}
    response = account.live.put(f"/orders/{full['id']}", json=wrong)
    assert faults(response).keys() == (wrong.keys() - {"items"}) | {"items[0].quantity"}
    assert read_order(account, full["id"]) == full


def test_external_id_of_another_order_is_refused(account: Account, buyer: str) -> None:
    first, second = (create_order(account, buyer, externalId=name) for name in ("one", "two"))
    assert change_order(account, first["id"], externalId="one")["externalId"] == "one"
    response = account.live.put(f"/orders/{first['id']}", json={"externalId": "two"})
    assert faults(response) == {"externalId": "External ID already exists"}
    assert response.json()["error"] == "External ID already exists"
    change_order(account, second["id"], externalId=None)
    assert change_order(account, first["id"], externalId="two")["externalId"] == "two"
    assert create_order(account, buyer, externalId="one")["externalId"] == "one"


def test_external_id_of_a_deleted_order_is_free_again(account: Account, full: dict[str, Any], buyer: str) -> None:
    deleted = account.live.delete(f"/orders/{full['id']}")
    assert (deleted.status_code, deleted.json()) == (200, full)
    assert create_order(account, buyer, externalId="x1")["externalId"] == "x1"


@pytest.mark.parametrize(
    ("sent", "number", "value", "newest"),
    [
        ({"amount": "12.34"}, 2, "13.34", 2),
        ({"refundedAmount": "0.0001"}, 2, "10.9999", 2),
        ({"status": "CREATED"}, 2, "11", 2),
        ({"status": "CANCELLED"}, 1, "1", 1),
        ({"status": "REFUNDED"}, 1, "1", 1),
        (
            {"currencyCode": "EUR", "baseAmount": 3, "refundedAmount": "3.3333"},
            2,
            "3",
            2,
        ),  # 2.00001, plus 1 of the other order
        ({"placedAt": "2024-01-04"}, 2, "11", 4),
        ({"placedAt": "2023-12-31T23:59:59.999Z"}, 2, "11", 1),
        ({"amount": 0}, 2, "1", 2),
    ],
)
def test_totals_follow_an_update(
    account: Account, buyer: str, sent: dict[str, Any], number: int, value: str, newest: int
) -> None:
    create_order(account, buyer, amount=1, placedAt="2024-01-01")
    changed = create_order(account, buyer, placedAt="2024-01-02")
    change_order(account, changed["id"], **sent)
    assert order_totals(account, buyer) == (number, Decimal(value), f"2024-01-0{newest}T00:00:00.000Z")
    account.settled()
    assert account.live.get(f"/consumers/{buyer}").text in account.live.get("/consumers").text


def test_totals_follow_deletes_and_status_changes(account: Account, buyer: str) -> None:
    days = [create_order(account, buyer, amount=day, placedAt=f"2024-01-0{day}") for day in (1, 3, 2)]
    account.live.delete(f"/orders/{days[1]['id']}")
    assert order_totals(account, buyer) == (2, Decimal(3), "2024-01-02T00:00:00.000Z")
    change_order(account, days[2]["id"], status="REFUNDED")
    assert order_totals(account, buyer) == (1, Decimal(1), "2024-01-01T00:00:00.000Z")
    account.live.delete(f"/orders/{days[0]['id']}")
    assert order_totals(account, buyer) == (0, Decimal(0), None)
    change_order(account, days[2]["id"], status="COMPLETED")
    assert order_totals(account, buyer) == (1, Decimal(2), "2024-01-02T00:00:00.000Z")


@pytest.mark.parametrize(
    ("before", "sent"),
    [
        ({"amount": 1}, {"amount": "1.0002"}),
        ({"amount": 2, "status": "CANCELLED"}, {"status": "CREATED"}),
        ({"amount": 2, "refundedAmount": 1}, {"refundedAmount": "0.5"}),
        ({"amount": 2, "currencyCode": "EUR", "baseAmount": 1}, {"baseAmount": "1.0002"}),
        ({"amount": 1}, {"amount": "999999999999999"}),
    ],
)
def test_update_past_the_total_limit_is_refused(
    account: Account, buyer: str, before: dict[str, Any], sent: dict[str, Any]
) -> None:
    changed = create_order(account, buyer, **before)
    create_order(account, buyer, amount="89999999999999")
    totals_before = order_totals(account, buyer)
    assert faults(account.live.put(f"/orders/{changed['id']}", json=sent)).keys() == {"amount"}
    assert (order_totals(account, buyer), read_order(account, changed["id"])) == (totals_before, changed)


def test_total_may_reach_its_limit_exactly(account: Account, buyer: str) -> None:
    changed = create_order(account, buyer, amount="0.5")
    create_order(account, buyer, amount="89999999999999")
    change_order(account, changed["id"], amount=1)
    assert order_totals(account, buyer)[1] == 90_000_000_000_000


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "order_id",
    [UNKNOWN, UNKNOWN.lower(), "ord_", "%00", "%ff", "%F0%9F%98%80", "'", UNKNOWN + "0", "x" * 2000, "ord_%0a"],
)
def test_unknown_order_is_404(account: Account, method: str, order_id: str) -> None:
    response = account.live.request(method, f"/orders/{order_id}", json={} if method == "PUT" else None)
    assert (response.status_code, response.json()["error"]) == (404, "Order not found")


def test_deleted_order_is_404(account: Account, full: dict[str, Any]) -> None:
    assert account.live.delete(f"/orders/{full['id']}").status_code == 200
    for method in ("GET", "PUT", "DELETE"):
        response = account.live.request(method, f"/orders/{full['id']}", json={} if method == "PUT" else None)
        assert (response.status_code, response.json()["error"]) == (404, "Order not found")


def test_deleting_a_consumer_deletes_its_orders(account: Account, full: dict[str, Any], buyer: str) -> None:
    account.live.delete(f"/consumers/{buyer}")
    assert account.live.get(f"/orders/{full['id']}").status_code == 404
    assert create_order(account, create(account.live)["id"], externalId="x1")["externalId"] == "x1"
