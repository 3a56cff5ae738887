"""Change and delete consumers (contract.md §2)."""

import json
from typing import Any

import httpx
import pytest

from tests.api.resources import add_to_new_audience, count_rows, create, faults
from tests.service import Account, Service, new_account

JOSE: dict[str, Any] = {
    "email": "José@example.com",
    "phone": "+442079460958",
    "fullName": "José García",
    "metadata": {"tier": "gold", "n": {"a": 1, "b": [1, None]}},
    "externalId": "crm/1",
}
UNKNOWN = "cons_00000000000000000000000000"


@pytest.fixture
def jose(account: Account) -> dict[str, Any]:
    return create(account.live, **JOSE)


def put(account: Account, consumer: dict[str, Any], **fields: Any) -> httpx.Response:
    return account.live.put(f"/consumers/{consumer['id']}", json=fields)


def fetch(account: Account, consumer: dict[str, Any], **options: Any) -> httpx.Response:
    return account.live.get(f"/consumers/{consumer['id']}", **options)


@pytest.mark.parametrize("field", JOSE)
def test_update_changes_only_the_field_sent(account: Account, jose: dict[str, Any], field: str) -> None:
    new = {
        "email": "Pepe@Example.COM",
        "phone": "+1 202 555 0143",
        "fullName": " Pepe ",
        "metadata": {"tier": "lead"},
        "externalId": "crm/2",
    }
    stored = {
        "email": "Pepe@example.com",
        "phone": "+12025550143",
        "fullName": "Pepe",
        "metadata": JOSE["metadata"] | {"tier": "lead"},
        "externalId": "crm/2",
    }
    response = put(account, jose, **{field: new[field]})
    assert response.status_code == 200
    assert response.json() == jose | {field: stored[field], "updatedAt": response.json()["updatedAt"]}
    assert response.json()["updatedAt"] >= jose["updatedAt"]
    assert fetch(account, jose).text == response.text
    assert response.headers["ETag"] == fetch(account, jose).headers["ETag"]
    account.settled()
    assert response.text in account.live.get("/consumers").text


@pytest.mark.parametrize("field", JOSE)
def test_null_clears_a_field(account: Account, jose: dict[str, Any], field: str) -> None:
    response = put(account, jose, **{field: None})
    assert response.json() == jose | {field: None, "updatedAt": response.json()["updatedAt"]}


def test_get_edit_put_changes_only_the_edited_field(account: Account, jose: dict[str, Any]) -> None:
    response = put(account, jose, **(fetch(account, jose).json() | {"fullName": "Pepe", "totalOrders": 99}))
    assert response.json() == jose | {"fullName": "Pepe", "updatedAt": response.json()["updatedAt"]}


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"f": 0.1, "whole": 1.0, "tiny": 5e-324, "large": 1e308, "zero": -0.0},
        {"big": 2**64, "bigger": 10**40, "negative": -(2**63) - 1},
        {"deep": {"a": {"b": {"c": {}}}}, "list": [None, {"a": None}], "text": "\u2028\u0001é😀"},
    ],
)
def test_sending_back_a_response_changes_nothing(account: Account, metadata: Any) -> None:
    created = account.live.post("/consumers", json=JOSE | {"metadata": metadata})
    before = fetch(account, created.json())
    account.settled()
    bodies: list[Any] = [
        before.json(),
        {},
        {"fullName": f" {JOSE['fullName']} "},
        {"metadata": {}} if metadata else {},
    ]
    for body in bodies:
        again = put(account, created.json(), **body)
        assert (again.text, again.headers["ETag"]) == (before.text, created.headers["ETag"])
        assert account.database.waiting(account.live_environment) == 0


def test_metadata_text_survives_an_update_of_another_field(account: Account, jose: dict[str, Any]) -> None:
    by_hand = '{"amount": 1.50, "precise": 0.1234567890123456789012}'
    with account.database.engine.begin() as connection:
        update = "UPDATE consumers SET metadata = %s WHERE id = %s"
        connection.exec_driver_sql(update, (by_hand, jose["id"]))
    assert by_hand in put(account, jose, fullName="Pepe").text


def test_untouched_metadata_numbers_keep_their_spelling(account: Account, jose: dict[str, Any]) -> None:
    order = create(account.live, "/orders", consumerId=jose["id"], amount=1)
    audience = create(account.live, "/audiences", name="A", type="STATIC")
    by_hand = '{"a": {"b": 1.00, "c": [1.50]}, "n": 123456789012345678901234567890}'
    expected = '{"a": {"b": 1.00, "c": [1.50], "d": 2}, "n": 123456789012345678901234567890}'
    for table, made in {"consumers": jose, "orders": order, "audiences": audience}.items():
        with account.database.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {table} SET metadata = %s WHERE id = %s", (by_hand, made["id"]))
        changed = account.live.put(f"/{table}/{made['id']}", json={"metadata": {"a": {"d": 2}, "x": None}})
        assert f'"metadata":{expected}' in changed.text


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": 1}, {"b": None}, {"a": 1}),
        ({"a": 1}, {"a": None}, {}),
        ({"a": [1, {"b": 2}]}, {"a": [{"b": None}]}, {"a": [{"b": None}]}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None, "d": {"e": 3}}}, {"a": {"c": 2, "d": {"e": 3}}}),
        ({"a": 1}, {"a": {"b": 1, "c": None}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": 1}, {"a": 1}),
        ({"a": {"b": {"c": {"d": 1}}}}, {"a": {"b": {"c": {"d": None}}}}, {"a": {"b": {"c": {}}}}),
        (None, {"a": {"b": None}}, {"a": {}}),
        (None, {"a": None}, {}),
        ({"a": 1}, None, None),
        ({"": 1, "a.b": 2}, {"": 3}, {"": 3, "a.b": 2}),
    ],
)
def test_metadata_is_merged_by_rfc_7396(account: Account, before: Any, patch: Any, after: Any) -> None:
    created = create(account.live, metadata=before)
    response = put(account, created, metadata=patch)
    assert (response.status_code, response.json()["metadata"]) == (200, after)
    assert fetch(account, created).json()["metadata"] == after


@pytest.mark.parametrize(
    ("before", "patch", "allowed"),
    [
        ({str(n): n for n in range(50)}, {"x": 1}, False),
        ({str(n): n for n in range(50)}, {"x": 1, "0": None}, True),
        ({str(n): n for n in range(50)}, {f"x{n}": None for n in range(500)}, True),
        ({"a": "x" * 10_000}, {"b": "x" * 10_000}, False),
        ({"a": "x" * 10_000}, {"b": "x" * 10_000, "a": None}, True),
        ({"a": {"b": {"c": {}}}}, {"a": {"b": {"c": {"d": {"e": 1}}}}}, True),
        ({"a": {"b": {"c": {}}}}, {"a": {"b": {"c": {"d": {"e": {}}}}}}, False),
        ({"a": 1}, {"a": {"b": {"c": {"d": {"e": {"f": None}}}}}}, False),
        (None, {"k" * 65: 1}, False),
        (None, {"k" * 65: None}, True),
        (None, [], False),
        ({"a": 1}, "text", False),
    ],
)
def test_metadata_limits_apply_to_the_merged_result(
    account: Account,
    before: Any,
    patch: Any,
    allowed: bool,  # noqa: FBT001
) -> None:
    created = create(account.live, metadata=before)
    response = put(account, created, metadata=patch)
    if allowed:
        assert response.status_code == 200
    else:
        assert list(faults(response)) == ["metadata"]
        assert fetch(account, created).json() == created


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]")])
def test_metadata_nested_too_deeply_is_400(
    account: Account, jose: dict[str, Any], method: str, opening: str, closing: str
) -> None:
    path = "/consumers" if method == "POST" else f"/consumers/{jose['id']}"
    headers = {"Content-Type": "application/json"}
    for depth in [*range(6, 900, 97), *range(900, 1010, 3)]:
        body = '{"metadata": {"a": ' + opening * depth + ("1" if opening != "[" else "") + closing * depth + "}}"
        response = account.live.request(method, path, content=body, headers=headers)
        assert response.status_code == 400, depth


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("email", "TAKEN@example.com", "Email already exists"),
        ("externalId", "taken", "External ID already exists"),
    ],
)
def test_value_of_another_consumer_is_refused_with_a_message(
    account: Account, jose: dict[str, Any], field: str, value: str, error: str
) -> None:
    create(account.live, email="Taken@example.com", externalId="taken")
    create(account.test, email="only-in-test@example.com")
    response = put(account, jose, **{field: value, "fullName": "Pepe"})
    assert faults(response) == {field: error}
    assert response.json()["error"] == error
    assert fetch(account, jose).json() == jose
    assert put(account, jose, email="only-in-test@example.com").status_code == 200


def test_own_values_may_be_repeated_in_another_case(account: Account, jose: dict[str, Any]) -> None:
    response = put(account, jose, email="JOSÉ@EXAMPLE.com", externalId=JOSE["externalId"])
    assert (response.status_code, response.json()["email"]) == (200, "JOSÉ@example.com")


def test_phone_is_parsed_with_the_organizations_region(service: Service) -> None:
    with new_account(service, region="GB") as british:
        created = create(british.live, phone="123")
        assert put(british, created, phone="020 7946 0958").json()["phone"] == "+442079460958"


def test_every_fault_is_listed_and_nothing_changes(account: Account, jose: dict[str, Any]) -> None:
    wrong = {
        "email": "x",
        "phone": "x",
        "fullName": "A\tB",
        "metadata": 1,
        "externalId": "a\tb",
        "fullname": "x",
        "id ": 1,
    }
    assert faults(put(account, jose, **wrong)).keys() == wrong.keys()
    assert fetch(account, jose).json() == jose


@pytest.mark.parametrize("text", ["", " ", "\u00a0\u200b\ufeff"])
def test_empty_text_is_null(account: Account, jose: dict[str, Any], text: str) -> None:
    empty = dict.fromkeys(("email", "phone", "fullName", "externalId"), text)
    assert put(account, jose, **empty).json().items() >= dict.fromkeys(empty).items()
    assert create(account.live, **empty).items() >= dict.fromkeys(empty).items()


@pytest.mark.parametrize("consumer_id", [UNKNOWN, "cons_1", "%00", "ord_00000000000000000000000000"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_unknown_consumer_is_404(account: Account, method: str, consumer_id: str) -> None:
    response = account.live.request(method, f"/consumers/{consumer_id}", json={} if method == "PUT" else None)
    assert (response.status_code, response.json()["error"]) == (404, "Consumer not found")


def test_delete_returns_the_consumer_and_removes_all_its_rows(account: Account, jose: dict[str, Any]) -> None:
    order = create(account.live, "/orders", consumerId=jose["id"], amount=5)
    audience = add_to_new_audience(account.live, jose["id"])
    last = fetch(account, jose)
    deleted = account.live.delete(f"/consumers/{jose['id']}")
    assert (deleted.status_code, deleted.text) == (200, last.text)
    assert account.live.delete(f"/consumers/{jose['id']}").status_code == 404
    for response in (fetch(account, jose), put(account, jose), account.live.get(f"/orders/{order['id']}")):
        assert response.status_code == 404
    assert [count_rows(account, name) for name in ("consumers", "orders", "audience_members")] == [0, 0, 0]
    assert account.live.get(f"/audiences/{audience}").status_code == 200
    account.settled()
    assert account.live.get("/consumers").json()["data"] == []
    again = create(account.live, **JOSE)
    assert again["id"] != jose["id"]
    account.settled()
    assert json.loads(account.live.get("/consumers").text)["data"] == [again]
