"""Create consumers: stored and shown by contract.md §2, or refused with every fault."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from infra import emails
from tests.api.resources import create, faults
from tests.service import Account, Service, new_account
from tests.unit.test_emails import SAME

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
        ("US", "202-555-0143 x12", "+12025550143 x12"),
        (None, "tel:+44-20-7946-0958;ext=5", "+442079460958 x5"),
        (None, "\u202a٠٢٠\u2011٧٩٤٦\u00a0٠٩٥٨\u202c", "٠٢٠\u2011٧٩٤٦\u00a0٠٩٥٨"),
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
            for value in ("a", "a@", "@b.com", "a b@c.com", "a@b", "a@b..com", "a@b.test", "a..b@c.com")
        ),
        *(
            ("email", value)
            for value in ("a" * 65 + "@b.com", "a@" + "b" * 250 + ".com", 5, ["a@b.com"], {"a": 1}, True)
        ),
        *(("phone", value) for value in ("12", "+", "abc", "12a34", "1" * 41, "447400000077.0", "4.474E+11", 123)),
        *(("fullName", value) for value in ("a" * 256, "a\tb", "a\x7f", "a\u0085b", "a\ufdd0", "a\U0010ffff", 1)),
        *(("externalId", value) for value in ("x" * 256, "a\tb", "a\u200bb", "a\u00a0b", "a\u3164", 1)),
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
        ("phone", "1" * 40),
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
        "fullName": "A\tB",
        "metadata": 1,
        "externalId": "a\tb",
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


def found_ids(account: Account, path: str, **parameters: str) -> set[str]:
    response = account.live.get(path, params=parameters)
    assert response.status_code == 200, response.text
    return {row["id"] for row in response.json()["data"]}


def test_spellings_of_an_address_are_one_address(account: Account) -> None:
    """Each address is stored in its last spelling, and is then found and taken in all others."""
    groups = [[key, *spellings] for key, spellings in SAME]
    stored = account.live.post("/consumers/batch", json=[{"email": f"\u00a0{group[-1]}\u200b"} for group in groups])
    assert stored.status_code == 201, stored.text
    ids = [row["id"] for row in stored.json()]
    assert [emails.fold(row["email"]) for row in stored.json()] == [group[0] for group in groups]
    others = [{"email": spelling} for group in groups for spelling in group]
    response = account.live.post("/consumers/batch", json=others)
    assert faults(response) == {f"[{n}].email": "Email already exists" for n in range(len(others))}
    account.settled()
    for consumer, group in zip(ids, groups, strict=True):
        for spelling in (group[0], f" {group[1]}\u00a0"):
            assert found_ids(account, "/consumers/search", email=spelling) == {consumer}
            assert found_ids(account, "/consumers/search", q=spelling) == {consumer}
            assert found_ids(account, "/consumers", search=spelling) == {consumer}
            assert found_ids(account, "/consumers", filter=f'email:"{spelling}"') == {consumer}
            order = create(account.live, "/orders", consumer={"email": spelling}, amount=1)
            assert order["consumerId"] == consumer
    again = account.live.put("/consumers/batch", json=stored.json())
    assert [row["email"] for row in again.json()] == [row["email"] for row in stored.json()]


def test_reserved_domain_is_accepted_with_a_test_key_only(account: Account) -> None:
    assert create(account.test, email="ann@shop.test")["email"] == "ann@shop.test"
    response = account.live.post("/consumers", json={"email": "ann@shop.test"})
    assert "test keys only" in faults(response)["email"]


def test_phone_is_found_as_it_is_written(service: Service) -> None:
    with new_account(service, region="GB") as account:
        phones = ["020 7946 0111 ext. 12", "+54 9 11 2345-6789", "+55 11 8765-4321", "0044 7400\u2011123\u00a0456"]
        [office, argentina, brazil, mobile] = [create(account.live, phone=phone)["id"] for phone in phones]
        account.settled()
        for consumer, numbers in {
            office: ["+442079460111", "020 7946 0111", "tel:+442079460111;ext=12", "٠٢٠ ٧٩٤٦ ٠١١١ x12"],
            argentina: ["+54 11 2345 6789", "+5491123456789"],
            brazil: ["+55 11 98765-4321", "+551187654321"],
            mobile: ["07400–123456", "\u202a+447400123456\u202c"],
        }.items():
            for number in numbers:
                assert found_ids(account, "/consumers/search", phone=number) == {consumer}
        assert found_ids(account, "/consumers", filter='phone:"020 7946 0111 x12"') == {office}
        assert found_ids(account, "/consumers", filter='phone:"+54 11 2345 6789"') == {argentina}


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
            assert faults(client.post("/orders", json=order)) == {
                "consumerId": "Unknown consumer: create the consumer first"
            }
            assert client.get("/consumers/search", params={"q": "a@example.com"}).json()["data"] == []
