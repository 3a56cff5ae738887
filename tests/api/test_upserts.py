"""Upserts, and batches in which valid items are stored although others have faults."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from tests.api.resources import count_rows, create, faults, stored_rows, stored_version
from tests.service import Account
from tests.unit.test_wire import DIFFERENT, SAME

PATH = "/consumers/batch/upsert"
JSON = {"Content-Type": "application/json"}


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


def test_json_is_compared_as_postgresql_stores_it(account: Account) -> None:
    """The version of a consumer moves by the same comparison (`*=`)."""
    query = sa.text("SELECT CAST(ROW(CAST(:one AS jsonb)) AS record) *= CAST(ROW(CAST(:other AS jsonb)) AS record)")
    with account.database.engine.connect() as connection:
        for pairs, expected in ((SAME, True), (DIFFERENT, False)):
            for one, other in pairs:
                assert connection.execute(query, {"one": one, "other": other}).scalar_one() is expected, (one, other)


@pytest.mark.parametrize("path", ["/consumers", "/orders"])
def test_unchanged_means_the_same_json(account: Account, path: str) -> None:
    client, item = account.live, {"externalId": "x-1"}
    if path == "/orders":
        item |= {"consumerId": create(client)["id"], "amount": "1"}
    values = ["1", "true", "1.0", "0.1", "[1]", "[true]", '{"b":0}', '{"b":false}', "10000000000000000000000", "1e22"]
    outcomes = []
    for value in values:
        body = msgspec.json.encode(item | {"metadata": {"a": msgspec.Raw(value.encode())}})
        for _ in range(2):
            response = client.post(f"{path}/batch/upsert", content=b"[" + body + b"]", headers=JSON)
            outcomes += statuses(response.json())
    assert outcomes == ["created", "unchanged", *["updated", "unchanged"] * (len(values) - 2), *["unchanged"] * 2]
    # SQL stores more digits than a float has.
    with account.database.engine.begin() as connection:
        update = f"""UPDATE {path[1:]} SET metadata = '{{"a": 0.1000000000000000055}}' WHERE environment_id = :id"""
        connection.execute(sa.text(update), {"id": account.live_environment})
    assert statuses(client.post(f"{path}/batch/upsert", json=[item | {"metadata": {"a": 0.1}}]).json()) == ["updated"]


def test_items_that_fail_reserve_nothing(account: Account) -> None:
    client = account.live
    create(client, email="taken@example.com")
    known = create(client, externalId="known", email="known@example.com")["id"]
    items = [
        {"externalId": "new", "email": "taken@example.com"},
        {"externalId": "new", "email": "new@example.com"},
        {"externalId": "other", "email": "new@example.com"},
        {"externalId": "other", "email": "taken@example.com"},
        {"externalId": "other"},
        {"externalId": "known", "email": "taken@example.com"},
        {"externalId": "known", "email": "moved@example.com"},
        {"externalId": "known", "email": "known@example.com"},
    ]
    stored = client.post(f"{PATH}?onError=continue", json=items).json()
    assert [status[0] for status in statuses(stored)] == [*"fcffcfuf"]
    changes = [{"id": known, "email": "taken@example.com"}, {"id": known, "fullName": "K"}, {"id": known}]
    assert statuses(client.put("/consumers/batch?onError=continue", json=changes).json()) == [
        "failed",
        "updated",
        "failed",
    ]
    plain = [{"externalId": "p", "email": "taken@example.com"}, {"externalId": "p"}, {"externalId": "p"}]
    made = client.post("/consumers/batch?onError=continue", json=plain).json()
    assert statuses(made) == ["failed", "created", "failed"]
    assert [error["message"] for error in made["results"][2]["errors"]] == ["Same as [1]"]


def test_answers_name_at_most_100_faults(account: Account) -> None:
    items: list[dict[str, Any]] = [{"externalId": f"x-{n}", "email": "x", "phone": "x", "typo": 1} for n in range(60)]
    answer = account.live.post(f"{PATH}?onError=continue", json=items)
    assert statuses(answer.json()) == ["failed"] * 60
    assert [len(result["errors"]) for result in answer.json()["results"]] == [3] * 20 + [1] * 40
    assert answer.json()["message"] == "80 more faults are not listed"
    typos = {f"typo{n}" * 20: None for n in range(200)}
    many = account.live.post("/consumers/batch?onError=continue", json=[typos, *[{"email": "x"}] * 499])
    assert statuses(many.json()) == ["failed"] * 500
    assert [len(result["errors"]) for result in many.json()["results"]] == [1] * 100 + [0] * 400
    assert many.json()["message"] == "599 more faults are not listed"
    assert len(many.content) < 64 * 1024
    assert "message" not in account.live.post(f"{PATH}?onError=continue", json=items[:1]).json()


def test_second_sync_changes_nothing(account: Account) -> None:
    people = [
        {"externalId": f"crm-{n}", "email": f"{n}@example.com", "fullName": f"N {n}", "metadata": {"n": n, "x": None}}
        for n in range(1_000)
    ]
    batches = [people[:500], people[500:]]
    for batch in batches:
        assert statuses(account.live.post(PATH, json=batch).json()) == ["created"] * 500
    account.settled()
    before = stored_rows(account.database, account.live_environment, "consumers")
    for batch in batches:
        assert statuses(account.live.post(PATH, json=batch).json()) == ["unchanged"] * 500
    assert stored_rows(account.database, account.live_environment, "consumers") == before
    assert count_rows(account, "outbox") == 0
