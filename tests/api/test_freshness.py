"""Reads with consistency tokens contain the caller's own writes (contract.md §1)."""

from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from infra import queue
from infra.redis_client import open_redis
from tests.api.freshness import (
    FUTURE,
    READS,
    TOKEN,
    WRITES,
    Resources,
    current_ids,
    index_lag_ms,
    is_stale,
    read,
    read_path,
    run_sql,
    token_of,
)
from tests.api.freshness import resources as resources  # noqa: PLC0414 (a fixture)
from tests.api.resources import create, faults
from tests.indexer.server_faults import UNPARSABLE_METADATA
from tests.service import Account, Service
from tests.waiting import wait_until


@pytest.mark.parametrize("kind", WRITES)
def test_waiting_write_responds_once_it_is_searchable(resources: Resources, kind: str) -> None:
    response = resources.write(kind, Prefer="wait=10")
    assert response.headers["Index-State"] == "searchable"
    assert response.headers["Preference-Applied"] == "wait=10"
    assert not is_stale(resources.account.live, response.headers[TOKEN])


def test_worker_announces_its_rounds(service: Service, account: Account) -> None:
    settings = service.database.settings
    with open_redis(settings, seconds=5) as redis, redis.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(queue.key_prefix(settings) + queue.ROUNDS)
        account.live.post("/consumers", json={"fullName": "Ann Lee"}).raise_for_status()
        wait_until(lambda: channel.get_message(timeout=0.1), what="the end of a round")


@pytest.mark.parametrize("kind", WRITES)
def test_write_without_wait_returns_only_its_token(resources: Resources, kind: str) -> None:
    response = resources.write(kind)
    assert response.headers[TOKEN]
    assert not {"index-state", "preference-applied"} & set(response.headers)


def test_created_consumer_is_listed_and_found_with_its_token(account: Account) -> None:
    made: list[str] = []
    for number in range(50):
        response = account.live.post("/consumers", json={"fullName": f"Name{number:03}"})
        made.insert(0, response.json()["id"])
        token = response.headers[TOKEN]
        assert current_ids(read(account.live, token, kind="search", q=f"name{number:03}"))[0] == made[0]
        assert current_ids(read(account.live, token, first=100)) == made


def test_list_by_totals_includes_each_order_with_its_token(account: Account) -> None:
    consumers = [create(account.live)["id"] for _ in range(2)]
    for number in range(50):
        body = {"consumerId": consumers[number % 2], "amount": 10 * (number + 1)}
        token = account.live.post("/orders", json=body).headers[TOKEN]
        response = read(account.live, token, sortBy="totalOrderValue")
        assert current_ids(response) == [consumers[number % 2], consumers[1 - number % 2]]
        assert response.json()["data"][0] == account.live.get(f"/consumers/{consumers[number % 2]}").json()


def test_membership_is_indexed_when_its_token_is_read(account: Account) -> None:
    consumer = create(account.live)["id"]
    audience = create(account.live, "/audiences", name="A", type="STATIC")["id"]
    for number in range(50):
        method, expected = ("DELETE", []) if number % 2 else ("POST", [audience])
        response = account.live.request(method, f"/audiences/{audience}/members", json={"consumerIds": [consumer]})
        assert current_ids(read(account.live, response.headers[TOKEN])) == [consumer]
        assert account.database.documents(account.live_environment)[consumer]["audienceIds"] == expected


def test_deleted_consumer_is_gone_with_its_token(account: Account) -> None:
    batch = account.live.post("/consumers/batch", json=[{"fullName": "Gone Soon"}] * 50)
    left = [row["id"] for row in reversed(batch.json())]
    assert current_ids(read(account.live, batch.headers[TOKEN], first=100)) == left
    while left:
        token = account.live.delete(f"/consumers/{left.pop()}").headers[TOKEN]
        assert current_ids(read(account.live, token, first=100)) == left
        assert current_ids(read(account.live, token, kind="search", q="gone soon", first=100)) == left


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize(
    "token", ["", "1", "1-", "abc", "2-5", "1-5", "1--1", "1-5 6", "1-5,1-5", "A" * 34, "1-" + "9" * 500, "1-٣"]
)
def test_malformed_token_is_refused(account: Account, kind: str, token: str) -> None:
    path, parameters = read_path(account.live, kind), READS[kind][1]
    response = account.live.get(path, params=parameters, headers={TOKEN.encode(): token.encode()})
    assert faults(response).keys() == {TOKEN}


def test_token_of_another_environment_is_refused(account: Account) -> None:
    for other, token in (
        (account.test, token_of(account, "5")),
        (account.live, account.test.put("/consumers/batch", json=[]).headers[TOKEN]),
    ):
        assert faults(read(other, token)).keys() == {TOKEN}


def test_token_of_a_future_transaction_is_stale(account: Account) -> None:
    """Such a token exists after the database was restored to an earlier time."""
    account.settled()
    token = token_of(account, FUTURE)
    assert is_stale(account.live, token)
    assert read(account.live, token, "wait=0, handling=strict").status_code == 503


@pytest.mark.parametrize("kind", READS)
def test_write_without_effect_is_searchable_at_once(account: Account, kind: str) -> None:
    consumer = create(account.live, fullName="Same")["id"]
    account.settled()
    response = account.live.put(f"/consumers/{consumer}", json={"fullName": "Same"}, headers={"Prefer": "wait=0"})
    assert response.headers["Index-State"] == "searchable"
    assert "Index-Stale" not in read(account.live, response.headers[TOKEN], "wait=0", kind).headers


def test_replayed_response_has_the_current_index_state(account: Account) -> None:
    def post(**headers: str) -> httpx.Response:
        return account.live.post("/consumers", json={"fullName": "Once"}, headers={"Idempotency-Key": "k"} | headers)

    first = post()
    again = post(Prefer="wait=10")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Index-State"] == "searchable"
    assert again.headers[TOKEN] == first.headers[TOKEN]


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        (["wait=10"], "wait=10"),
        (["wait=11"], "wait=10"),
        (["wait=999999999"], "wait=10"),
        (['wait="3"'], "wait=3"),
        (["WAIT = 3"], "wait=3"),
        (["wait=3; because=x, respond-async"], "wait=3"),
        (["return=minimal, wait=3, wait=5"], "wait=3"),
        (["return=minimal", "wait=3", "wait=5"], "wait=3"),
        (["handling=strict", "wait=3"], "wait=3"),
        (['note="a, wait=5, b", wait=3'], "wait=3"),
        (['note="a \\", wait=5, b", wait=3'], "wait=3"),
        (['wait=3; note="a, wait=5, b"'], "wait=3"),
        (["wait"], None),
        (["wait="], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=soon"], None),
        (["wait=３"], None),
        (["wait=1 2"], None),
        (["waits=3"], None),
        (["handling=strict"], None),
        ([",;=\"'"], None),
        ([""], None),
    ],
)
def test_prefer_header_of_a_write(account: Account, prefer: list[str], applied: str | None) -> None:
    headers = [(b"Prefer", value.encode()) for value in prefer]
    response = account.live.post("/audiences", json={"name": "A", "type": "STATIC"}, headers=headers)
    assert response.status_code == 201, response.text
    assert response.headers.get("Preference-Applied") == applied
    assert response.headers.get("Index-State") == (applied and "searchable")


def test_index_without_changes_has_no_lag(account: Account) -> None:
    create(account.live)
    account.settled()
    for kind in READS:
        wait_until(lambda kind=kind: index_lag_ms(account.live, kind) == 0, what="no lag")  # type: ignore[misc]


@pytest.fixture
def poisoned(account: Account) -> Iterator[str]:
    """A consumer for a test to give an invalid document; deleted afterwards."""
    consumer = str(create(account.live)["id"])
    yield consumer
    run_sql(account, "DELETE FROM consumers WHERE id = :id", id=consumer)
    account.settled()


def test_refused_document_makes_only_its_own_token_stale(account: Account, poisoned: str) -> None:
    update = "UPDATE consumers SET metadata = CAST(:m AS jsonb) WHERE id = :id"
    token = run_sql(account, update, id=poisoned, m=UNPARSABLE_METADATA)
    wait_until(lambda: refused(account, poisoned), what="the refusal")
    for _ in range(5):
        response = account.live.post("/consumers", json={}, headers={"Prefer": "wait=10"})
        assert response.headers["Index-State"] == "searchable"
        assert response.json()["id"] in current_ids(read(account.live, response.headers[TOKEN], "wait=0"))
        assert is_stale(account.live, token)
        assert is_stale(account.live, f"{token}, {response.headers[TOKEN]}"), "the later one does not stand for both"
    run_sql(account, "UPDATE outbox SET parked_at = now() WHERE consumer_id = :id", id=poisoned)
    assert is_stale(account.live, token)


def refused(account: Account, consumer: str) -> bool:
    query = sa.text("SELECT EXISTS (SELECT FROM outbox WHERE consumer_id = :id AND attempts > 0)")
    with account.database.engine.connect() as connection:
        return bool(connection.execute(query, {"id": consumer}).scalar_one())


def test_running_import_makes_only_its_own_token_stale(account: Account, service: Service) -> None:
    with service.without("background", "beat"):
        insert = "INSERT INTO consumers (environment_id) SELECT :e FROM generate_series(1, 1000)"
        token = run_sql(account, insert, lane="bulk")
        for _ in range(5):
            response = account.live.post("/consumers", json={}, headers={"Prefer": "wait=10"})
            assert response.headers["Index-State"] == "searchable"
            assert response.json()["id"] in current_ids(read(account.live, response.headers[TOKEN], "wait=0"))
            assert is_stale(account.live, token)
    wait_until(lambda: not is_stale(account.live, token), what="the import")
