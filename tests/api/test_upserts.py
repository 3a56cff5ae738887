"""Upserts, and batches in which valid items are stored although others have faults."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.resources import count_rows, create, faults, stored_version
from tests.service import Account

PATH = "/consumers/batch/upsert"


def statuses(content: dict[str, Any]) -> list[str]:
    results = content["results"]
    assert [result["index"] for result in results] == list(range(len(results)))
    counts = {status: content[status] for status in ("created", "updated", "unchanged", "failed")}
    found = [str(result["status"]) for result in results]
    assert counts == {status: found.count(status) for status in counts}
    return found


def test_single_upsert_creates_changes_and_keeps(account: Account) -> None:
    client = account.live
    body = {"externalId": "crm-1", "email": "a@example.com", "fullName": "A", "metadata": {"tier": "gold", "n": 1}}
    made = client.post("/consumers/upsert", json=body)
    assert made.status_code == 201
    assert made.headers["Location"].endswith(made.json()["id"])
    again = client.post("/consumers/upsert", json=body)
    assert (again.status_code, again.text, again.headers["ETag"]) == (200, made.text, made.headers["ETag"])
    change = {"externalId": "crm-1", "metadata": {"n": None}, "email": None}
    changed = client.post("/consumers/upsert", json=change)
    assert changed.status_code == 200
    expected = {"metadata": {"tier": "gold"}, "email": None, "fullName": "A", "id": made.json()["id"]}
    assert changed.json().items() >= expected.items()
    by_email = {"email": "B@example.com", "externalId": "crm-2"}
    assert client.post("/consumers/upsert?matchBy=email", json=by_email).status_code == 201
    moved = client.post("/consumers/upsert?matchBy=email", json={"email": "b@example.com", "externalId": "crm-3"})
    assert (moved.status_code, moved.json()["externalId"]) == (200, "crm-3")
    assert count_rows(account) == 2
    assert faults(client.post("/consumers/upsert", json={"email": "c@example.com"})).keys() == {"externalId"}
    taken = client.post("/consumers/upsert", json={"externalId": "crm-1", "email": "b@example.com"})
    assert (taken.json()["code"], taken.json()["details"][0]["existingId"]) == ("email_taken", moved.json()["id"])


@pytest.mark.parametrize("by", ["externalId", "email"])
def test_batch_of_upserts(account: Account, by: str) -> None:
    client, path = account.live, f"{PATH}?matchBy={by}"
    items = [{"externalId": f"crm-{n}", "email": f"{n}@example.com", "fullName": f"Name {n}"} for n in range(5)]
    made = client.post(path, json=items)
    assert made.status_code == 200
    assert statuses(made.json()) == ["created"] * 5
    ids = [result["id"] for result in made.json()["results"]]
    versions = [stored_version(account, consumer) for consumer in ids]
    outbox = count_rows(account, "outbox")
    again = client.post(path, json=items)
    assert statuses(again.json()) == ["unchanged"] * 5
    assert [result["consumer"] for result in again.json()["results"]] == [
        result["consumer"] for result in made.json()["results"]
    ]
    assert [stored_version(account, consumer) for consumer in ids] == versions
    assert count_rows(account, "outbox") <= outbox
    items[1]["fullName"] = "Other"
    items.append({"externalId": "crm-9", "email": "9@example.com"})
    changed = client.post(path, json=items, headers={"Prefer": "return=minimal"})
    expected = ["unchanged", "updated", "unchanged", "unchanged", "unchanged", "created"]
    assert statuses(changed.json()) == expected
    assert not any("consumer" in result for result in changed.json()["results"])
    assert client.get(f"/consumers/{ids[1]}").json()["fullName"] == "Other"


def test_faults_abort_a_batch_or_fail_alone(account: Account) -> None:
    client = account.live
    owner = create(client, externalId="crm-0", email="taken@example.com")["id"]
    items: list[Any] = [
        {"externalId": "crm-1", "fullName": "A"},
        {"externalId": "crm-2", "email": "nonsense"},
        {"fullName": "Without a key"},
        {"externalId": "crm-1", "fullName": "Again"},
        {"externalId": "crm-3", "email": "taken@example.com"},
        "no object",
        {"externalId": "crm-0", "fullName": "Owner"},
    ]
    refused = client.post(PATH, json=items)
    fields = ["[1].email", "[2].externalId", "[3].externalId", "[4].email", "[5]"]
    assert sorted(faults(refused)) == fields
    assert count_rows(account) == 1
    stored = client.post(f"{PATH}?onError=continue", json=items)
    assert stored.status_code == 207
    assert statuses(stored.json()) == ["created", *["failed"] * 5, "updated"]
    errors = [[(error["field"], error["code"]) for error in result["errors"]] for result in stored.json()["results"]]
    assert errors == [
        [],
        [("email", "invalid_email")],
        [("externalId", "required")],
        [("externalId", "duplicate")],
        [("email", "email_taken")],
        [("", "invalid_type")],
        [],
    ]
    assert stored.json()["results"][4]["errors"][0]["existingId"] == owner
    assert count_rows(account) == 2


def test_plain_batches_continue_after_faults(account: Account) -> None:
    client = account.live
    items = [{"email": "a@example.com"}, {"email": "A@example.com"}, {"email": "x"}, {"email": "b@example.com"}]
    made = client.post("/consumers/batch?onError=continue", json=items)
    assert made.status_code == 207
    assert statuses(made.json()) == ["created", "failed", "failed", "created"]
    ids = [result["id"] for result in made.json()["results"]]
    changes = [
        {"id": ids[0], "email": "b@example.com"},
        {"id": ids[3], "fullName": "B"},
        {"id": "cons_x"},
        {"id": ids[3]},
    ]
    changed = client.put("/consumers/batch?onError=continue", json=changes)
    assert statuses(changed.json()) == ["failed", "updated", "failed", "failed"]
    codes = [error["code"] for result in changed.json()["results"] for error in result["errors"]]
    assert codes == ["email_taken", "consumer_not_found", "duplicate"]
    assert client.post("/consumers/batch?onError=skip", json=[]).status_code == 400


def test_concurrent_upserts_store_each_consumer_once(account: Account) -> None:
    items = [{"externalId": f"crm-{n}", "email": f"{n}@example.com"} for n in range(40)]
    with ThreadPoolExecutor(6) as pool:
        orders = [items, items[::-1], items[20:] + items[:20]] * 2
        responses = list(pool.map(lambda chosen: account.live.post(PATH, json=chosen), orders))
    assert {response.status_code for response in responses} == {200}
    found = [status for response in responses for status in statuses(response.json())]
    assert (found.count("created"), found.count("unchanged")) == (40, 200)
    assert count_rows(account) == 40


def test_upsert_is_replayed_by_its_idempotency_key(account: Account) -> None:
    headers = {"Idempotency-Key": "nightly-1"}
    first, again = (account.live.post(PATH, json=[{"externalId": "crm-1"}], headers=headers) for _ in range(2))
    assert statuses(first.json()) == ["created"]
    assert (again.text, again.headers["Idempotent-Replayed"]) == (first.text, "true")
