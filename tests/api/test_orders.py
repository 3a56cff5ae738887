"""Create orders: stored and shown by contract.md §3, with exact totals."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.api.orders import written_totals
from tests.api.resources import create, faults
from tests.service import Account

FIELDS = [
    *("id", "consumerId", "externalId", "status", "amount", "refundedAmount", "currencyCode", "baseAmount"),
    *("items", "metadata", "placedAt", "createdAt", "updatedAt"),
]


@pytest.fixture
def buyer(account: Account) -> str:
    return str(create(account.live, email="Buyer@example.com", externalId="b1")["id"])


def send(account: Account, **fields: Any) -> httpx.Response:
    return account.live.post("/orders", json=fields)


def test_order_has_every_field_in_order_with_defaults(account: Account, buyer: str) -> None:
    order = create(account.live, "/orders", consumerId=buyer, amount=149.99)
    assert list(order) == FIELDS
    assert re.fullmatch(r"ord_[0-7][0-9A-HJKMNP-TV-Z]{25}", order["id"])
    assert {name: order[name] for name in FIELDS[1:10]} == {
        "consumerId": buyer,
        "externalId": None,
        "status": "COMPLETED",
        "amount": "149.99",
        "refundedAmount": "0",
        "currencyCode": "USD",
        "baseAmount": "149.99",
        "items": None,
        "metadata": None,
    }
    assert order["createdAt"] == order["updatedAt"] == order["placedAt"]


def test_items_are_returned_complete_in_documented_order(account: Account, buyer: str) -> None:
    items = [
        {"unitAmount": 3.5, "quantity": 2, "productId": "p"},
        {"productId": "q", "variantId": "v", "quantity": 0.125},
        {"productId": "r", "quantity": 1.50},
    ]
    order = create(account.live, "/orders", consumerId=buyer, amount=7, items=items, metadata={"b": 1, "a": [2.50]})
    assert [list(item.items()) for item in order["items"]] == [
        [("productId", "p"), ("variantId", None), ("quantity", 2), ("unitAmount", "3.5")],
        [("productId", "q"), ("variantId", "v"), ("quantity", 0.125), ("unitAmount", None)],
        [("productId", "r"), ("variantId", None), ("quantity", 1.5), ("unitAmount", None)],
    ]
    changed = account.live.put(f"/orders/{order['id']}", json={"status": "CREATED"}).json()
    assert changed["items"] == order["items"]
    assert account.live.get(f"/consumers/{buyer}?include=orders").json()["orders"] == [changed]
    assert order["metadata"] == {"a": [2.5], "b": 1}


@pytest.mark.parametrize("consumer", [{"email": "bUYER@EXAMPLE.com"}, {"externalId": "b1"}])
def test_order_may_name_its_consumer_by_email_or_external_id(
    account: Account, buyer: str, consumer: dict[str, str]
) -> None:
    assert create(account.live, "/orders", consumer=consumer, amount=1)["consumerId"] == buyer


@pytest.mark.parametrize(
    ("named", "field"),
    [
        ({}, "consumerId"),
        ({"consumerId": None, "consumer": None}, "consumerId"),
        ({"consumerId": ""}, "consumerId"),
        ({"consumerId": "cons_00000000000000000000000000"}, "consumerId"),
        ({"consumerId": "b1"}, "consumerId"),
        ({"consumerId": 5}, "consumerId"),
        ({"consumerId": "b1", "consumer": {"externalId": "b1"}}, "consumerId"),
        ({"consumer": {}}, "consumer"),
        ({"consumer": {"email": "buyer@example.com", "externalId": "b1"}}, "consumer"),
        ({"consumer": {"email": "nobody@example.com"}}, "consumer"),
        ({"consumer": {"externalId": "B1"}}, "consumer"),
        ({"consumer": "b1"}, "consumer"),
        ({"consumer": {"id": "b1"}}, "consumer.id"),
    ],
)
def test_unknown_or_ambiguous_consumer_is_refused(
    account: Account, buyer: str, named: dict[str, Any], field: str
) -> None:
    assert field in faults(send(account, amount=1, **named))
    assert written_totals(account, buyer) == (0, "0", None)


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("0", "0"), ('"0.0001"', "0.0001"), ("0.1", "0.1"), ('"149.90"', "149.90"), ("1e2", "100"), ("100.0", "100"),
        ("1e14", "100000000000000"), ('"99999999999.9999"', "99999999999.9999"), ("99999999999.999", "99999999999.999"),
        ("999999999999999", "999999999999999"), ('"007"', "7"), ("-0.0", "0"),
    ],
)  # fmt: skip
def test_amount_is_exact_as_number_or_string(account: Account, buyer: str, sent: str, stored: str) -> None:
    body = f'{{"consumerId": "{buyer}", "status": "CANCELLED", "amount": {sent}}}'
    response = account.live.post("/orders", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 201, response.text
    assert response.json()["amount"] == response.json()["baseAmount"] == stored


@pytest.mark.parametrize(
    "amount",
    [
        *(-1, "-0.0001", 0.00001, "1.23456", "1000000000000000", 1e15, "123456789012.1234", "1e400", 10**400),
        *("", "x", "NaN", "Infinity", "1,5", " 1", "1\n", "１", "0x1", "1_0", True, None, [], {}),
    ],
)
def test_invalid_amount_is_refused(account: Account, buyer: str, amount: Any) -> None:
    assert faults(send(account, consumerId=buyer, amount=amount)).keys() == {"amount"}


def test_all_faults_of_an_order_are_listed_at_once(account: Account, buyer: str) -> None:
    body = {
        "consumerId": 5,
        "amount": "x",
        "refundedAmount": -1,
        "status": "completed",
        "currencyCode": "us$",
        "baseAmount": [],
        "items": [{"productId": "", "quantity": 1.0005, "price": 1}, 5],
        "metadata": [],
        "placedAt": "soon",
        "externalId": "a\tb",
        "total": 1,
    }
    expected = (body.keys() - {"items"}) | {
        *("items[0].productId", "items[0].quantity", "items[0].price", "items[1]"),
    }
    assert faults(send(account, **body)).keys() == expected
    assert written_totals(account, buyer) == (0, "0", None)


def test_release_before_can_read_a_decimal_quantity(account: Account, buyer: str) -> None:
    """Its type of a quantity is a whole number, and it ignores unknown fields."""
    items = [{"productId": "p", "quantity": 2.5}, {"productId": "p", "quantity": 3}]
    create(account.live, "/orders", consumerId=buyer, amount=7, items=items)
    with account.database.engine.connect() as connection:
        query = sa.text("SELECT items FROM orders WHERE consumer_id = :id")
        stored = connection.execute(query, {"id": buyer}).scalar_one()
    assert [(item["quantity"], item.get("exactQuantity")) for item in stored] == [(3, 2.5), (3, None)]


@pytest.mark.parametrize("code", ["HRK", "bgn", " Dem ", "zwl", "ANG"])
def test_withdrawn_and_lower_case_currency_is_accepted(account: Account, buyer: str, code: str) -> None:
    order = create(account.live, "/orders", consumerId=buyer, amount=7, currencyCode=code, baseAmount=1)
    assert order["currencyCode"] == code.strip().upper()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount": 5, "refundedAmount": "5.0001"}, "refundedAmount"),
        ({"amount": 5, "currencyCode": "EUR"}, "baseAmount"),
        ({"amount": 5, "baseAmount": 4}, "baseAmount"),
        ({"amount": 5, "currencyCode": "USD", "baseAmount": "5.0001"}, "baseAmount"),
        ({"amount": 5, "items": [{"productId": "p", "quantity": 1}] * 201}, "items"),
        ({"amount": 5, "read": 1}, "read"),
    ],
)
def test_inconsistent_fields_are_refused(account: Account, buyer: str, fields: dict[str, Any], field: str) -> None:
    assert faults(send(account, consumerId=buyer, **fields)).keys() == {field}


@pytest.mark.parametrize(
    ("orders", "number", "value"),
    [
        ([{"amount": 0.1}, {"amount": 0.2}], 2, "0.3"),
        ([{"amount": "1234.50"}], 1, "1234.5"),
        ([{"amount": 1}] * 3, 3, "3"),
        ([{"amount": 10, "refundedAmount": "2.5"}], 1, "7.5"),
        ([{"amount": 10, "refundedAmount": 10}], 1, "0"),
        ([{"amount": 0}], 1, "0"),
        ([{"amount": 10, "status": "CREATED"}, {"amount": 5}], 2, "15"),
        ([{"amount": 10, "status": "CANCELLED"}, {"amount": 5, "status": "REFUNDED"}], 0, "0"),
        ([{"amount": 200, "currencyCode": "JPY", "baseAmount": "1.33"}], 1, "1.33"),
        ([{"amount": 3, "refundedAmount": 1, "currencyCode": "EUR", "baseAmount": 1}], 1, "0.6667"),
        ([{"amount": 8, "refundedAmount": 7, "currencyCode": "EUR", "baseAmount": "0.0004"}], 1, "0"),
        ([{"amount": 8, "refundedAmount": 5, "currencyCode": "EUR", "baseAmount": "0.0004"}], 1, "0.0002"),
        ([{"amount": 0, "currencyCode": "EUR", "baseAmount": 5}], 1, "0"),
        ([{"amount": "89999999999999.5"}, {"amount": "0.5"}], 2, "90000000000000"),
        ([{"amount": "9999999999999.99"}, {"amount": "0.0099"}], 2, "9999999999999.9999"),
    ],
)
def test_totals_are_exact(account: Account, buyer: str, orders: list[dict[str, Any]], number: int, value: str) -> None:
    for index, order in enumerate(orders):
        create(account.live, "/orders", consumerId=buyer, placedAt=f"2024-01-0{index + 1}", **order)
    newest = f"2024-01-0{len(orders)}T00:00:00.000Z" if number else None
    assert written_totals(account, buyer) == (number, value, newest)
    account.settled()
    single = account.live.get(f"/consumers/{buyer}").text
    assert single in account.live.get("/consumers", params={"sortBy": "totalOrderValue"}).text


def test_total_past_its_limit_is_refused_and_nothing_changes(account: Account, buyer: str) -> None:
    create(account.live, "/orders", consumerId=buyer, amount="90000000000000")
    before = written_totals(account, buyer)
    assert faults(send(account, consumerId=buyer, amount="0.0001")).keys() == {"amount"}
    batch = [{"consumerId": buyer, "amount": 0}, {"consumerId": buyer, "amount": 1}]
    assert "[1].amount" in faults(account.live.post("/orders/batch", json=batch))
    assert written_totals(account, buyer) == before


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("2024-11-01T10:00:00.9996Z", "2024-11-01T10:00:00.999Z"),
        ("2024-11-01", "2024-11-01T00:00:00.000Z"),
        ("2024-11-01T10:00:00+02:00", "2024-11-01T08:00:00.000Z"),
        ("2024-11-01T10:00:00.123456789-23:59", "2024-11-02T09:59:00.123Z"),
        ("2024-11-01t10:00:00z", "2024-11-01T10:00:00.000Z"),
        ("0001-01-02T00:00:00Z", "0001-01-02T00:00:00.000Z"),
        ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
    ],
)
def test_time_is_returned_in_utc_truncated_to_milliseconds(
    account: Account, buyer: str, sent: str, stored: str
) -> None:
    assert create(account.live, "/orders", consumerId=buyer, amount=1, placedAt=sent)["placedAt"] == stored
    assert written_totals(account, buyer)[2] == stored


@pytest.mark.parametrize(
    "sent",
    [
        *("", "now", "2024-02-30", "2024-11-01T10:00:00", "2024-11-01T24:00:00Z", "2024-11-01T10:00:00+24:00"),
        *("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "20241101", 1730455200, True),
    ],
)
def test_invalid_time_is_refused(account: Account, buyer: str, sent: Any) -> None:
    assert faults(send(account, consumerId=buyer, amount=1, placedAt=sent)).keys() == {"placedAt"}


def test_one_of_several_concurrent_duplicates_is_created(account: Account, buyer: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for turn in range(5):
            bodies = [{"consumerId": buyer, "amount": 1, "externalId": f"twin {turn}"}] * 8
            responses = list(pool.map(lambda body: account.live.post("/orders", json=body), bodies))
            assert sorted(response.status_code for response in responses) == [201] + [400] * 7
            errors = {response.json()["error"] for response in responses if response.status_code == 400}
            assert errors == {"External ID already exists"}
    assert written_totals(account, buyer)[:2] == (5, "5")


def test_database_faults_are_listed_with_the_other_faults(account: Account, buyer: str) -> None:
    known = create(account.live, "/orders", consumerId=buyer, amount=1, externalId="x1")
    wrong = {"externalId": "x1", "status": "DONE", "placedAt": "soon"}
    response = send(account, consumerId="nobody", amount=1, **wrong)
    assert faults(response).keys() == {"consumerId", *wrong}
    assert response.json()["error"] == "Validation failed"
    nobody = {"consumer": {"email": "nobody@example.com"}} | wrong
    for amounts in ({"amount": "x"}, {"amount": -1}, {}):
        assert faults(send(account, **amounts, **nobody)).keys() == {"amount", *nobody}
    other = create(account.live, "/orders", consumerId=buyer, amount=1)
    assert faults(account.live.put(f"/orders/{other['id']}", json=wrong)).keys() == wrong.keys()
    missing = f"/orders/{known['id'][:-5]}00000"
    assert account.live.put(missing, json=wrong).status_code == 404
    batch = [
        5,
        {"consumerId": buyer, "amount": "x"},
        {"consumerId": "nobody", "amount": 1},
        {"amount": 1} | wrong,
        nobody,
    ]
    fields = {"[0]", "[1].amount", "[2].consumerId", *(f"[3].{name}" for name in wrong), "[4].amount"}
    fields |= {f"[4].{name}" for name in nobody}
    assert faults(account.live.post("/orders/batch", json=batch)).keys() == fields


def test_concurrent_batches_with_equal_ids_never_deadlock(account: Account, buyer: str) -> None:
    others = [create(account.live)["id"] for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        for turn in range(10):
            batches = [
                [{"consumerId": one, "amount": 1, "externalId": f"{turn} {number}"} for number in numbers]
                for one, numbers in zip([buyer, *others], [range(99), range(98, -1, -1)] * 2, strict=True)
            ]
            responses = list(pool.map(lambda batch: account.live.post("/orders/batch", json=batch), batches))
            assert sorted(response.status_code for response in responses) == [201, 400, 400, 400]
