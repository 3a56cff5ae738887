"""Batches of consumers: all or nothing, response in request order, each fault with the index of the item."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api.resources import count_rows, create, faults
from tests.service import Account, Service, new_account

LIMIT = 500
EMAIL, EXTERNAL_ID = "Email already exists", "External ID already exists"
UNKNOWN = "cons_00000000000000000000000000"

Items = list[dict[str, Any]]


def send(account: Account, method: str, body: Any) -> httpx.Response:
    return account.live.request(method, "/consumers/batch", json=body)


def create_batch(account: Account, number: int, **fields: str) -> Items:
    """Create `number` consumers in one batch; `{}` in a field's text becomes the index of the consumer."""
    items = [{name: text.format(n) for name, text in fields.items()} for n in range(number)]
    response = send(account, "POST", items)
    assert response.status_code == 201, response.text
    content: Items = response.json()
    return content


def is_listed(account: Account, rows: Items) -> bool:
    return sorted(account.live.get("/consumers").json()["data"], key=str) == sorted(rows, key=str)


def is_unchanged(account: Account, before: Items) -> bool:
    rows = [account.live.get(f"/consumers/{one['id']}").json() for one in before]
    return rows == before and count_rows(account) == len(before)


@pytest.mark.parametrize("wrapped", [False, True])
def test_batch_response_keeps_the_request_order(account: Account, wrapped: bool) -> None:  # noqa: FBT001
    people = [{"externalId": f"{n * 7919 % LIMIT:03}", "email": f"{n}@example.com"} for n in range(LIMIT)]
    created = send(account, "POST", {"consumers": people} if wrapped else people)
    assert created.status_code == 201
    assert [{name: one[name] for name in ("externalId", "email")} for one in created.json()] == people
    ids = [one["id"] for one in created.json()]
    assert ids == sorted(set(ids))
    backwards = [{"id": one["id"], "fullName": one["externalId"]} for one in reversed(created.json())]
    changed = send(account, "PUT", {"consumers": backwards} if wrapped else backwards)
    assert changed.status_code == 200
    assert [one["id"] for one in changed.json()] == ids[::-1]
    assert all(one["fullName"] == one["externalId"] for one in changed.json())
    account.settled()
    assert len(account.database.documents(account.live_environment)) == LIMIT


def test_batch_of_one_equals_a_single_request(account: Account) -> None:
    [created] = create_batch(account, 1, email="a@example.com")
    assert account.live.get(f"/consumers/{created['id']}").json() == created
    sent = created | {"phone": "+44 20 7946 0958", "metadata": {"a": 1}}
    [changed] = send(account, "PUT", [sent]).json()
    assert changed == sent | {"phone": "+442079460958", "updatedAt": changed["updatedAt"]}
    [again] = send(account, "PUT", [changed]).json()
    assert again == changed


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("item", [{}, None, {"email": "wrong"}, {"id": UNKNOWN}])
@pytest.mark.parametrize("wrapped", [False, True])
def test_batch_of_more_than_500_is_refused(account: Account, method: str, item: Any, wrapped: bool) -> None:  # noqa: FBT001
    body = [item] * (LIMIT + 1)
    response = send(account, method, {"consumers": body} if wrapped else body)
    assert (response.status_code, response.json()["error"]) == (400, "Max batch size is 500")
    assert count_rows(account) == 0


@pytest.mark.parametrize(("method", "status"), [("POST", 201), ("PUT", 200)])
@pytest.mark.parametrize("body", [[], {"consumers": []}])
def test_empty_batch_returns_an_empty_array(account: Account, method: str, status: int, body: Any) -> None:
    response = send(account, method, body)
    assert (response.status_code, response.text) == (status, "[]")


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"consumers"}),
        ({"consumers": None}, {"consumers"}),
        ({"consumers": {}}, {"consumers"}),
        ({"orders": []}, {"consumers", "orders"}),
        ({"consumers": [], "dryRun": True}, {"dryRun"}),
        (5, {"consumers"}),
        ("[]", {"consumers"}),
        ([[]], {"[0]"}),
    ],
)
def test_body_that_is_not_a_batch_is_refused(account: Account, method: str, body: Any, fields: set[str]) -> None:
    assert faults(send(account, method, body)).keys() == fields


def test_every_faulty_item_is_listed_and_nothing_is_stored(account: Account) -> None:
    right = {"fullName": "A"}
    body = [right, 5, None, {"email": "x", "phone": "y"}, {"fullname": ""}, [], {"metadata": {"k" * 65: 1}}, right]
    expected = {"[1]", "[2]", "[3].email", "[3].phone", "[4].fullname", "[5]", "[6].metadata"}
    response = send(account, "POST", body)
    assert faults(response).keys() == expected
    assert response.json()["error"] == "Validation failed"
    assert count_rows(account) == 0


def test_every_faulty_change_is_listed_and_nothing_changes(account: Account) -> None:
    before = create_batch(account, 4, fullName="Person {}")
    ids = [one["id"] for one in before]
    body = [
        {"id": ids[0], "fullName": "B"},
        {"fullName": "C"},
        {"id": ids[1], "email": "x"},
        {"id": 5},
        {"id": ids[2], "metadata": {str(n): n for n in range(51)}},
        {"id": ids[3], "nope": 1},
        {"id": None},
    ]
    expected = {"[1].id", "[2].email", "[3].id", "[4].metadata", "[5].nope", "[6].id"}
    assert faults(send(account, "PUT", body)).keys() == expected
    assert is_unchanged(account, before)


def test_duplicate_and_existing_values_are_listed_together(account: Account) -> None:
    before = create_batch(account, 1, email="Taken@example.com", externalId="taken")
    body: Items = [
        {"email": "new@example.com", "externalId": "TAKEN"},
        {"email": "TAKEN@example.com"},
        {"email": "NEW@EXAMPLE.com", "externalId": "n"},
        {"email": None, "externalId": None},
        {"externalId": "taken"},
        {"email": "Éa@example.com", "externalId": "n"},
        {"email": "éa@example.com"},
        {},
    ]
    response = send(account, "POST", body)
    expected = {"[1].email": EMAIL, "[2].email": "Same as [0]", "[6].email": "Same as [5]"}
    assert faults(response) == expected | {"[4].externalId": EXTERNAL_ID, "[5].externalId": "Same as [2]"}
    assert response.json()["error"] == "Validation failed"
    mixed = send(account, "POST", [*body, {"phone": "x"}, {"email": "taken@example.com", "phone": "x"}])
    assert faults(mixed).keys() == faults(response).keys() | {"[8].phone", "[9].email", "[9].phone"}
    assert mixed.json()["error"] == "Validation failed"
    assert is_unchanged(account, before)


@pytest.mark.parametrize("field", ["email", "externalId"])
def test_conflict_is_reported_at_the_item_that_takes_the_value(account: Account, field: str) -> None:
    before = create_batch(account, 2, email="{}@example.com", externalId="{}@example.com")
    body = [{"id": before[0]["id"], field: before[1][field]}, {"id": before[1]["id"], "fullName": "B"}]
    for order in (body, body[::-1]):
        assert list(faults(send(account, "PUT", order))) == [f"[{order.index(body[0])}].{field}"]
    assert is_unchanged(account, before)


@pytest.mark.parametrize("field", ["email", "externalId"])
def test_state_after_the_batch_decides_about_unique_values(account: Account, field: str) -> None:
    """A value is freed and used again, moved along, swapped, and passed around."""
    before = create_batch(account, 9, email="{}@example.com", externalId="{}@example.com")
    values = [one[field] for one in before]
    new = [values[1], "new@example.com", values[3], values[2], values[5], values[6], values[4], None, values[7].upper()]
    if field == "externalId":
        new[8] = values[7]
    after = send(account, "PUT", [{"id": one["id"], field: value} for one, value in zip(before, new, strict=True)])
    assert after.status_code == 200, after.text
    assert [one[field] for one in after.json()] == [value and value.lower() for value in new]
    account.settled()
    assert is_listed(account, after.json())


@pytest.mark.parametrize("field", ["email", "externalId"])
def test_values_that_stay_taken_are_refused_within_a_move(account: Account, field: str) -> None:
    before = create_batch(account, 4, email="{}@example.com", externalId="{}@example.com")
    values, ids = [one[field] for one in before], [one["id"] for one in before]
    moved = [values[1], values[2], values[3]]
    exists = EMAIL if field == "email" else EXTERNAL_ID
    shifted = [{"id": ids[n], field: moved[n]} for n in range(3)]
    assert faults(send(account, "PUT", shifted)) == {f"[2].{field}": exists}
    staying = [*shifted, {"id": ids[3], "fullName": "Stays"}]
    assert faults(send(account, "PUT", staying)) == {f"[2].{field}": exists}
    repeated = [*shifted[:2], {"id": ids[2], field: "x@example.com"}, {"id": ids[3], field: "x@example.com"}]
    assert faults(send(account, "PUT", repeated)) == {f"[3].{field}": "Same as [2]"}
    assert is_unchanged(account, before)


def test_random_moves_of_values_agree_with_a_model(account: Account) -> None:
    """Many small groups of consumers in each batch, each group with moves of its own."""
    chance = random.Random(7)
    values = [f"{n}@example.com" for n in range(120)]
    before = create_batch(account, 90, email="{}@example.com")
    held = {one["id"]: one["email"] for one in before}
    for _ in range(8):
        group = chance.sample(list(held), 60)
        free = [value for value in values if value not in {held[one] for one in held.keys() - set(group)}]
        wanted = [None if chance.random() < 0.1 else value for value in chance.sample(free, len(group))]
        response = send(account, "PUT", [{"id": one, "email": new} for one, new in zip(group, wanted, strict=True)])
        assert response.status_code == 200, response.text
        held |= dict(zip(group, wanted, strict=True))
        assert [one["email"] for one in response.json()] == wanted
    account.settled()
    assert {one["id"]: one["email"] for one in account.live.get("/consumers?first=100").json()["data"]} == held


def test_all_unknown_ids_are_listed_and_nothing_changes(account: Account, service: Service) -> None:
    before = create_batch(account, 1, fullName="A")
    with new_account(service) as other:
        foreign = [create(client)["id"] for client in (account.test, other.live)]
        ids = [UNKNOWN, before[0]["id"], *foreign, "cons_1", "", "x" * 5000, "ord_00000000000000000000000000"]
        response = send(account, "PUT", [{"id": one, "fullName": "B"} for one in ids])
        assert response.json()["error"] == "Consumer not found"
        messages = faults(response, 404)
        assert list(messages) == [f"[{n}].id" for n in range(len(ids)) if n != 1]
        assert all(ids[n][:64] in messages[f"[{n}].id"] for n in range(len(ids)) if n != 1)
        assert other.live.get(f"/consumers/{foreign[1]}").json()["fullName"] is None
    assert account.test.get(f"/consumers/{foreign[0]}").json()["fullName"] is None
    assert is_unchanged(account, before)


def test_duplicate_id_in_a_batch_is_refused(account: Account) -> None:
    before = create_batch(account, 2, fullName="Person {}")
    ids = [before[n]["id"] for n in (0, 1, 0, 0)]
    response = send(account, "PUT", [{"id": one, "fullName": "B"} for one in ids])
    assert list(faults(response)) == ["[2].id", "[3].id"]
    assert is_unchanged(account, before)


@pytest.mark.parametrize("field", ["email", "externalId"])
def test_one_of_several_equal_concurrent_batches_is_stored(account: Account, field: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for turn in range(10):
            items = [{field: f"{n}.{turn}@example.com"} for n in range(50)]
            responses = list(pool.map(lambda body: send(account, "POST", body), [items, items[::-1]] * 4))
            assert sorted(response.status_code for response in responses) == [201] + [400] * 7
            for response in responses:
                assert response.status_code == 201 or len(faults(response)) == 50
    assert count_rows(account) == 500


def test_concurrent_batches_on_the_same_consumers_all_succeed(account: Account) -> None:
    ids = [one["id"] for one in create_batch(account, 50, email="{}@example.com")]
    with ThreadPoolExecutor(4) as pool:
        for turn in range(20):
            items = [{"id": one, "fullName": f"Turn {turn}"} for one in ids]
            bodies = [items, items[::-1], items[10:], items[::-2]]
            responses = list(pool.map(lambda body: send(account, "PUT", body), bodies))
            assert [response.status_code for response in responses] == [200] * 4


def test_one_of_several_concurrent_batches_takes_the_values(account: Account) -> None:
    ids = [one["id"] for one in create_batch(account, 80, email="{}@example.com")]
    with ThreadPoolExecutor(4) as pool:
        for turn in range(10):
            emails = [f"{n}.{turn}@example.com" for n in range(20)]
            pairs = [(ids[n : n + 20], emails[:: 1 if n % 40 else -1]) for n in range(0, 80, 20)]
            bodies = [[{"id": one, "email": new} for one, new in zip(*pair, strict=True)] for pair in pairs]
            responses = list(pool.map(lambda body: send(account, "PUT", body), bodies))
            assert sorted(response.status_code for response in responses) == [200] + [400] * 3


def test_batch_updates_only_consumers_that_differ(account: Account) -> None:
    before = create_batch(account, 3, fullName="Person {}")
    body = [{"id": one["id"], "fullName": name} for one, name in zip(before, ("A", "Person 1", "C"), strict=True)]
    after = send(account, "PUT", body).json()
    same = [new["updatedAt"] == old["updatedAt"] for new, old in zip(after, before, strict=True)]
    assert same == [False, True, False]
