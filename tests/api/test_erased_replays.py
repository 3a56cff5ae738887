"""Deleting a consumer empties the stored answers with the consumer's data; a retry then gets 410 (contract.md §1)."""

import asyncio
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from api.answers import Answer
from api.idempotency import OF_ENVIRONMENT, Claim, store, take
from api.transactions import begin
from infra.database.engine import open_async_engine
from tests.api.resources import count_rows, create
from tests.endpoints import merchant_endpoints
from tests.service import Account
from tests.waiting import wait_until

EMAIL = "zelda.quibble@example.com"
PERSON = {"email": EMAIL, "fullName": "Zelda Quibble", "phone": "+442079460111", "externalId": "Z-1"}
OTHERS = [{"externalId": "other-1"}, {"externalId": "other-2"}]
ORDER = {"consumer": {"externalId": "Z-1"}, "amount": 1, "metadata": {"ship to": "Zelda Quibble"}}
WITH_CONSUMERS: dict[str, Any] = {
    "/consumers": PERSON,
    "/consumers/batch": [OTHERS[0], PERSON, OTHERS[1]],
    "/consumers/upsert": PERSON,
    "/consumers/batch/upsert": [OTHERS[0], PERSON],
    "/orders": ORDER,
    "/orders/batch": [ORDER],
    "/orders/upsert": ORDER | {"externalId": "O-1"},
    "/orders/batch/upsert": [ORDER | {"externalId": "O-1"}],
}
CHANGES: dict[tuple[str, str], Any] = {
    ("PUT", "/consumers/{consumerId}"): PERSON,
    ("PUT", "/consumers/batch"): [PERSON],
    ("PUT", "/orders/{orderId}"): {"metadata": {"ship to": "Zelda Quibble"}},
    ("DELETE", "/orders/{orderId}"): None,
}
"""Changes of stored objects, whose answers have data of the person."""
DELETION = ("DELETE", "/consumers/{consumerId}")
WITHOUT_CONSUMERS = {
    ("POST", "/audiences"),
    ("PUT", "/audiences/{audienceId}"),
    ("DELETE", "/audiences/{audienceId}"),
    *((method, "/audiences/{audienceId}/members") for method in ("POST", "PUT", "DELETE")),
    ("POST", "/exports"),
    ("DELETE", "/exports/{exportId}"),
}


def send(account: Account, method: str, path: str, body: Any, key: str) -> httpx.Response:
    return account.live.request(method, path, json=body, headers={"Idempotency-Key": key})


def post(account: Account, path: str, body: Any, key: str) -> httpx.Response:
    return send(account, "POST", path, body, key)


def written(account: Account, path: str, key: str) -> str:
    """Make a request whose answer contains the person, and return the person's id."""
    if path.startswith("/orders"):
        create(account.live, **PERSON)
    body = WITH_CONSUMERS[path]
    status = 200 if path.endswith("/batch/upsert") else 201
    assert post(account, path, body, key).status_code == status
    replay = post(account, path, body, key)
    assert (replay.status_code, replay.headers["Idempotent-Replayed"]) == (status, "true")
    with account.database.engine.connect() as connection:
        find = sa.text("SELECT id FROM consumers WHERE environment_id = :id AND external_id = 'Z-1'")
        return str(connection.execute(find, {"id": account.live_environment}).scalar_one())


def stored_answers(account: Account) -> list[sa.Row[Any]]:
    with account.database.engine.connect() as connection:
        query = sa.text("SELECT k.*, k::text AS all FROM idempotency_keys k WHERE environment_id = :id")
        return list(connection.execute(query, {"id": account.live_environment}))


def test_every_write_is_tested_here() -> None:
    """A new write belongs to one of the groups: its answer names consumers in `Answer.consumer_ids`, or has none."""
    writes = {
        (endpoint.method, endpoint.documented_path.removeprefix("/api/v1"))
        for endpoint in merchant_endpoints()
        if endpoint.takes_key
    }
    with_consumers = {("POST", path) for path in WITH_CONSUMERS} | CHANGES.keys() | {DELETION}
    assert writes == with_consumers | WITHOUT_CONSUMERS


@pytest.mark.parametrize("path", WITH_CONSUMERS)
@pytest.mark.parametrize("way", ["API", "SQL"])
def test_retry_after_a_deletion_is_410_and_writes_nothing(account: Account, path: str, way: str) -> None:
    key = f"sign-up of {EMAIL}"
    consumer = written(account, path, key)
    if way == "API":
        account.live.delete(f"/consumers/{consumer}").raise_for_status()
    else:
        with account.database.engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM consumers WHERE id = :id"), {"id": consumer})
    [stored] = stored_answers(account)
    assert (stored.body, stored.headers, stored.consumer_ids) == (b"", {}, None)
    assert EMAIL not in stored.all
    before = count_rows(account), count_rows(account, "orders")
    for _ in range(2):
        retry = post(account, path, WITH_CONSUMERS[path], key)
        assert (retry.status_code, retry.json()["error"]) == (410, "Consumer deleted")
    assert (count_rows(account), count_rows(account, "orders")) == before
    assert post(account, path, [], key).status_code in {400, 409}


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_retry_of_a_change_after_a_deletion_is_410(account: Account, method: str, path: str) -> None:
    consumer = str(create(account.live, **PERSON)["id"])
    order = create(account.live, "/orders", **ORDER)["id"]
    body, target = CHANGES[method, path], path.format(consumerId=consumer, orderId=order)
    if path.endswith("batch"):
        body = [PERSON | {"id": consumer}]
    assert send(account, method, target, body, f"change of {EMAIL}").status_code == 200
    account.live.delete(f"/consumers/{consumer}").raise_for_status()
    [stored] = stored_answers(account)
    assert (stored.body, stored.headers, stored.consumer_ids) == (b"", {}, None)
    assert EMAIL not in stored.all
    retry = send(account, method, target, body, f"change of {EMAIL}")
    assert (retry.status_code, retry.json()["error"]) == (410, "Consumer deleted")


def test_retry_of_a_deletion_is_200_without_data_of_the_person(account: Account) -> None:
    consumer = str(create(account.live, **PERSON)["id"])
    create(account.live, "/orders", **ORDER, placedAt="2020-01-01")
    key, path = f"removal of {EMAIL}", f"/consumers/{consumer}"
    first = send(account, "DELETE", path, None, key)
    assert (first.status_code, first.json()["email"], first.json()["totalOrders"]) == (200, EMAIL, 1)
    [stored] = stored_answers(account)
    for value in (*PERSON.values(), first.json()["lastOrderAt"]):
        assert value not in stored.all
        assert str(value).encode() not in stored.body
    empty = dict.fromkeys(PERSON) | {"lastOrderAt": None, "totalOrders": 0, "totalOrderValue": 0}
    for _ in range(2):
        retry = send(account, "DELETE", path, None, key)
        assert (retry.status_code, retry.headers["Idempotent-Replayed"]) == (200, "true")
        assert retry.json() == first.json() | empty
        assert retry.headers["Consistency-Token"] == first.headers["Consistency-Token"]
    assert send(account, "DELETE", path, None, "another key").status_code == 404
    assert post(account, "/consumers", PERSON, key).status_code == 409
    assert count_rows(account) == 0


def test_key_of_a_deleted_consumer_is_free_after_24_hours(account: Account) -> None:
    """The emptied answers of the day before are there until the upkeep deletes them."""
    age = "UPDATE idempotency_keys SET created_at = created_at - interval '25 hours' WHERE environment_id = :id"
    for number in range(2):
        made = post(account, "/consumers", {"externalId": str(number)}, "creation")
        path = f"/consumers/{made.json()['id']}"
        assert [send(account, "DELETE", path, None, "deletion").status_code for _ in range(2)] == [200, 200]
        assert post(account, "/consumers", {"externalId": str(number)}, "creation").status_code == 410
        with account.database.engine.begin() as connection:
            connection.execute(sa.text(age), {"id": account.live_environment})
        assert send(account, "DELETE", path, None, "deletion").status_code == 404


def test_retry_of_a_running_deletion_gets_its_answer(account: Account) -> None:
    """The retry, in another process of the API, waits at the claim, and then finds the key hidden."""
    claim = Claim(OF_ENVIRONMENT, account.live_environment, "k1", b"", is_delete=True)
    waiting = sa.text("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = :pid")

    def is_waiting(pid: int) -> bool:
        with account.database.engine.connect() as connection:
            return bool(connection.execute(waiting, {"pid": pid}).scalar_one())

    async def taken() -> Answer | None:
        engine = open_async_engine(account.database.settings)
        async with engine.connect() as first, engine.connect() as second:
            await begin(first)
            assert await take(first, claim) is None
            await store(first, claim, Answer(200, b"data", stored_body=b"{}"), 0)
            pid = (await second.execute(sa.text("SELECT pg_backend_pid()"))).scalar_one()
            await second.rollback()
            await begin(second)
            retry = asyncio.create_task(take(second, claim))
            await asyncio.to_thread(wait_until, lambda: is_waiting(pid), what="the retry to wait")
            await first.commit()
            answer = await retry
        await engine.dispose()
        return answer

    answer = asyncio.run(taken())
    assert answer
    assert (answer.status, answer.body) == (200, b"{}")


def test_other_answers_are_kept(account: Account) -> None:
    written(account, "/consumers", "k1")
    other = post(account, "/consumers", {"fullName": "B"}, "k2").json()["id"]
    account.live.delete(f"/consumers/{other}").raise_for_status()
    assert post(account, "/consumers", PERSON, "k1").status_code == 201
    assert post(account, "/consumers", {"fullName": "B"}, "k2").status_code == 410
    with account.database.engine.begin() as connection:
        age = "UPDATE idempotency_keys SET created_at = created_at - interval '25 hours' WHERE environment_id = :id"
        connection.execute(sa.text(age), {"id": account.live_environment})
    assert post(account, "/consumers", {"fullName": "B"}, "k2").status_code == 201


def test_deletion_finds_answers_by_an_index(account: Account) -> None:
    """The table has hardly any rows, so by its statistics a scan would be cheaper."""
    consumer = written(account, "/consumers", "k1")
    query = sa.text("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'idempotency_consumers'")

    def scans() -> int:
        with account.database.engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    before = scans()
    account.live.delete(f"/consumers/{consumer}").raise_for_status()
    wait_until(lambda: scans() > before, what="the statistics")


def test_long_answers_are_stored_compressed_and_replayed_unchanged(account: Account) -> None:
    people = [{"email": f"person.{number}@example.com", "fullName": f"Person {number}"} for number in range(500)]
    first = post(account, "/consumers/batch", people, "k1")
    [stored] = stored_answers(account)
    assert len(stored.body) * 4 < len(first.content)
    replay = post(account, "/consumers/batch", people, "k1")
    assert (replay.status_code, replay.content) == (201, first.content)


def test_emptied_answer_deleted_inside_a_claim_frees_the_key(account: Account) -> None:
    """The upkeep deletes the row between the two statements of the claim."""
    account.live.delete(f"/consumers/{written(account, '/consumers', 'k1')}").raise_for_status()
    claim = Claim(OF_ENVIRONMENT, account.live_environment, "k1", b"")

    def delete_row(_: sa.Connection, __: Any, statement: str, *___: Any) -> None:
        if "INSERT INTO idempotency_keys" in statement:
            with account.database.engine.begin() as upkeep:
                delete = sa.text("DELETE FROM idempotency_keys WHERE environment_id = :id")
                upkeep.execute(delete, {"id": account.live_environment})

    async def taken() -> Answer | None:
        engine = open_async_engine(account.database.settings)
        sa.event.listen(engine.sync_engine, "after_cursor_execute", delete_row)
        async with engine.connect() as connection:
            answer = await take(connection, claim)
        await engine.dispose()
        return answer

    assert asyncio.run(taken()) is None
