"""Create consumers: stored and shown by contract.md §2, or refused with every fault."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.resources import create, faults
from tests.service import Account, Service, new_account

FIELDS = [
    *("id", "email", "phone", "fullName", "metadata", "externalId"),
    *("totalOrders", "totalOrderValue", "lastOrderAt", "createdAt", "updatedAt"),
]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_consumer_has_every_field_in_order_including_nulls(account: Account) -> None:
    created = create(account.live)
    assert list(created) == FIELDS
    assert re.fullmatch(r"cons_[0-7][0-9A-HJKMNP-TV-Z]{25}", created["id"])
    assert TIME.fullmatch(created["createdAt"])
    assert created["updatedAt"] == created["createdAt"]
    assert {name: created[name] for name in FIELDS[1:9]} == {
        **dict.fromkeys(("email", "phone", "fullName", "metadata", "externalId", "lastOrderAt")),
        "totalOrders": 0,
        "totalOrderValue": 0,
    }


def test_consumer_is_read_back_as_it_was_created(account: Account) -> None:
    sent = {
        "email": "José+News@Exämple.COM",
        "phone": "+44 20 7946 0958",
        "fullName": "  Jose\u0301 \u200d Garci\u0301a ",
        "metadata": {"tier": "gold", "": {"a.b": [None, True, 1, -2.5, "x\u0001"]}, "n": 12345678901234567890},
        "externalId": " \ufeffcrm/42\u00a0",
    }
    created = account.live.post("/consumers", json=sent)
    content = created.json()
    assert content["email"] == "José+News@exämple.com"
    assert content["phone"] == "+442079460958"
    assert content["fullName"] == "José \u200d García"
    assert content["metadata"] == sent["metadata"]
    assert content["externalId"] == "crm/42"
    assert account.live.get(f"/consumers/{content['id']}").text == created.text
    account.settled()
    assert created.text in account.live.get("/consumers").text


@pytest.mark.parametrize(
    ("region", "sent", "stored"),
    [
        (None, "+44 (0)20 7946-0958", "+442079460958"),
        (None, "+1.202.555.0143", "+12025550143"),
        (None, "020 7946 0958", "020 7946 0958"),
        ("GB", "020 7946 0958", "+442079460958"),
        ("GB", "+1 202 555 0143", "+12025550143"),
        ("GB", "0044 20 7946 0958", "+442079460958"),
        ("US", "(202) 555-0143", "+12025550143"),
        ("US", "202-555-0143 x12", "202-555-0143 x12"),
        ("GB", "123", "123"),
        (None, "+9991234", "+9991234"),
        (None, "1/2#3", "1/2#3"),
    ],
)
def test_phone_is_stored_as_e164_if_possible(service: Service, region: str | None, sent: str, stored: str) -> None:
    with new_account(service, region=region) as account:
        assert create(account.live, phone=sent)["phone"] == stored


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("email", value)
            for value in ("", "a", "a@", "@b.com", "a b@c.com", "a@b", "a@b..com", "a@b.com\n", " a@b.com")
        ),
        *(
            ("email", value)
            for value in ("a" * 65 + "@b.com", "a@" + "b" * 250 + ".com", 5, ["a@b.com"], {"a": 1}, True)
        ),
        *(("phone", value) for value in ("", "12", "+", "abc", "12a34", "1" * 33, "１２３", "123\n", 123)),
        *(
            ("fullName", value)
            for value in ("", "   ", "a" * 256, "a\tb", "a\x7f", "a\u0085b", "a\ufdd0", "a\U0010ffff", 1)
        ),
        *(("externalId", value) for value in ("", "x" * 256, "a\tb", "a\u200bb", "a\u00a0b", "a\u3164", 1)),
        ("metadata", []),
        ("metadata", "{}"),
        ("metadata", {str(n): n for n in range(51)}),
        ("metadata", {"k" * 65: 1}),
        ("metadata", {"a": {"b": {"c": {"d": {"e": {}}}}}}),
        ("metadata", {"a": [[[[[]]]]]}),
        ("metadata", {"a": "x" * 16 * 1024}),
    ],
)
def test_invalid_value_is_refused_and_nothing_is_stored(account: Account, field: str, value: Any) -> None:
    assert list(faults(account.live.post("/consumers", json={field: value}))) == [field]
    account.settled()
    assert account.live.get("/consumers").json()["data"] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "a" * 64 + "@b.com"),
        ("phone", "1 2 3".ljust(32)),
        ("fullName", "𝒂" * 255),
        ("externalId", "x" * 255),
        ("externalId", "№ 1 é"),
        ("metadata", {}),
        ("metadata", {str(n): n for n in range(50)}),
        ("metadata", {"k" * 64: {"b": {"c": {"d": {"e": 1}}}}}),
        ("metadata", {"a": "x" * (16 * 1024 - 8)}),
        ("metadata", {"a": 1e22, "b": 5e-324, "c": -0.0, "d": 2**63, "e": "\\u0000"}),
    ],
)
def test_value_at_its_limit_is_accepted(account: Account, field: str, value: Any) -> None:
    created = create(account.live, **{field: value})
    assert created[field] == value
    account.settled()
    [listed] = account.live.get("/consumers").json()["data"]
    assert listed == created


def test_all_faults_are_listed_at_once(account: Account) -> None:
    body = {
        "email": "x",
        "phone": "x",
        "fullName": "",
        "metadata": 1,
        "externalId": "",
        "fullname": "x",
        "totalOrder": 1,
    }
    response = account.live.post("/consumers", json=body)
    assert faults(response).keys() == body.keys()
    assert faults(response)["email"] == "Invalid email format"
    assert response.json()["error"] == "Validation failed"
    assert response.json()["requestId"] == response.headers["X-Request-Id"]


def test_read_only_fields_are_ignored(account: Account) -> None:
    first = create(account.live, email="a@example.com", fullName="A")
    again = create(account.live, **(first | {"email": None, "totalOrders": "many", "createdAt": 5}))
    assert again["id"] != first["id"]
    assert again["totalOrders"] == 0
    assert again["fullName"] == "A"


def test_email_is_unique_ignoring_case_and_external_id_exactly(account: Account) -> None:
    create(account.live, email="Élan@Example.com", externalId="X1")
    for email in ("Élan@example.com", "élan@EXAMPLE.com", "ÉLAN@example.com"):
        response = account.live.post("/consumers", json={"email": email})
        assert faults(response) == {"email": "Email already exists"}
        assert response.json()["error"] == "Email already exists"
    response = account.live.post("/consumers", json={"externalId": "X1"})
    assert faults(response) == {"externalId": "External ID already exists"}
    assert response.json()["error"] == "External ID already exists"
    both = account.live.post("/consumers", json={"email": "élan@example.com", "externalId": "X1"})
    assert faults(both).keys() == {"email", "externalId"}
    create(account.live, externalId="x1")
    create(account.test, email="Élan@Example.com", externalId="X1")


@pytest.mark.parametrize(
    ("field", "error"), [("email", "Email already exists"), ("externalId", "External ID already exists")]
)
def test_one_of_several_concurrent_duplicates_is_created(account: Account, field: str, error: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for turn in range(10):
            bodies = [{field: name.format(turn)} for name in ["twin{}@example.com"] * 8]
            responses = list(pool.map(lambda body: account.live.post("/consumers", json=body), bodies))
            assert sorted(response.status_code for response in responses) == [201] + [400] * 7
            assert {response.json()["error"] for response in responses if response.status_code == 400} == {error}


def test_duplicate_email_is_reported_while_its_owner_is_deleted(account: Account) -> None:
    """The row that caused the conflict may be deleted before the message is looked up."""

    def create_and_delete(name: str) -> set[tuple[int, str | None]]:
        outcomes = set()
        for _ in range(40):
            response = account.live.post("/consumers", json={"email": "one@example.com", "fullName": name})
            outcomes.add((response.status_code, response.json().get("error")))
            if response.status_code == 201:
                account.live.delete(f"/consumers/{response.json()['id']}").raise_for_status()
        return outcomes

    with ThreadPoolExecutor(6) as pool:
        outcomes = set().union(*pool.map(create_and_delete, "ABCDEF"))
    assert outcomes == {(201, None), (400, "Email already exists")}


def test_consumer_of_another_environment_is_unknown(service: Service, account: Account) -> None:
    created = create(account.live, email="a@example.com")
    with new_account(service) as other:
        for client in (account.test, other.live, other.test):
            response = client.get(f"/consumers/{created['id']}")
            unknown = client.get("/consumers/cons_00000000000000000000000000")
            assert response.status_code == unknown.status_code == 404
            assert response.json()["error"] == unknown.json()["error"] == "Consumer not found"
            order = {"consumerId": created["id"], "amount": 1}
            assert faults(client.post("/orders", json=order)) == {"consumerId": "Unknown consumer"}
            assert client.get("/consumers/search", params={"q": "a@example.com"}).json()["data"] == []
