"""Consistency headers of reads and writes while no worker runs (contract.md §1)."""

from collections.abc import Iterator

import pytest

from tests.api.freshness import READS, TOKEN, WRITES, Resources, index_lag_ms, is_empty, is_stale, read, run_sql
from tests.api.freshness import resources as resources  # noqa: PLC0414 (a fixture)
from tests.api.resources import create
from tests.metrics import metrics
from tests.service import Account, Service, new_account
from tests.waiting import wait_until


@pytest.fixture(scope="module", autouse=True)
def no_worker(service: Service) -> Iterator[None]:
    with service.without("worker", "background", "beat"):
        yield


@pytest.fixture
def token(account: Account) -> str:
    """The token of a write that is not in the index."""
    response = account.live.post("/consumers", json={"fullName": "Not Yet"})
    return response.headers[TOKEN]


@pytest.mark.parametrize(("kind", "seconds"), [*((kind, 0) for kind in WRITES), ("consumer", 1), ("order", 1)])
def test_write_whose_wait_ends_is_stored_and_pending(resources: Resources, kind: str, seconds: int) -> None:
    response = resources.write(kind, Prefer=f"wait={seconds}")
    assert response.headers["Index-State"] == "pending"
    assert response.headers["Preference-Applied"] == f"wait={seconds}"
    assert is_stale(resources.account.live, response.headers[TOKEN])


def test_replayed_response_is_pending(account: Account) -> None:
    headers = {"Idempotency-Key": "k", "Prefer": "wait=0"}
    responses = [account.live.post("/consumers", json={}, headers=headers) for _ in range(2)]
    assert responses[1].headers["Idempotent-Replayed"] == "true"
    assert [response.headers["Index-State"] for response in responses] == ["pending"] * 2
    assert responses[0].headers[TOKEN] == responses[1].headers[TOKEN]


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("prefer", ["wait=0", "wait=1", None])
def test_read_whose_wait_ends_is_marked_stale(account: Account, token: str, kind: str, prefer: str | None) -> None:
    response = read(account.live, token, prefer, kind)
    assert response.status_code == 200, response.text
    assert is_empty(response)
    assert response.headers["Index-Stale"] == "true"
    assert response.headers.get("Preference-Applied") == prefer


@pytest.mark.parametrize("kind", READS)
def test_read_of_an_incomplete_index_is_marked_stale(account: Account, kind: str) -> None:
    written = account.live.post("/orders/batch", json=[])
    lost = "UPDATE generations SET lost_at = {} WHERE state = 'live'"
    run_sql(account, lost.format("now()"))
    try:
        # A measured lag is used for a while.
        wait_until(lambda: "Index-Stale" in read(account.live, None, None, kind).headers, what="the mark")
        strict = read(account.live, written.headers[TOKEN], "handling=strict, wait=0", kind)
    finally:
        run_sql(account, lost.format("NULL"))
    assert strict.status_code == 503


def test_stale_answers_are_counted(account: Account, token: str, service: Service) -> None:
    before = metrics(service)["consumers_stale_answers_total",]
    read(account.live, token, "wait=0", "list")
    account.live.get("/consumers")
    assert metrics(service)["consumers_stale_answers_total",] == before + 1


@pytest.mark.parametrize("kind", READS)
def test_strict_read_whose_wait_ends_is_503(account: Account, token: str, kind: str) -> None:
    response = read(account.live, token, "handling=strict, wait=0", kind)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["Preference-Applied"] == "wait=0, handling=strict"
    assert response.json()["error"] == "Search unavailable"
    assert TOKEN in response.json()["message"]
    assert response.json()["requestId"] == response.headers["X-Request-Id"]


@pytest.mark.parametrize("kind", READS)
def test_read_without_a_token_does_not_wait(account: Account, token: str, kind: str) -> None:
    assert token
    response = read(account.live, None, "handling=strict, wait=10", kind)
    assert response.status_code == 200, response.text
    assert not {"index-stale", "preference-applied"} & set(response.headers)


def test_write_without_effect_waits_for_earlier_writes(account: Account) -> None:
    consumer = create(account.live)["id"]
    response = account.live.put(f"/consumers/{consumer}", json={})
    assert is_stale(account.live, response.headers[TOKEN])


def test_token_covers_only_its_own_environment(account: Account, service: Service) -> None:
    with new_account(service) as other:
        create(other.live)
        create(account.test)
        token = account.live.put("/consumers/batch", json=[]).headers[TOKEN]
        assert not is_stale(account.live, token)


@pytest.mark.parametrize("kind", READS)
def test_lag_rises_while_no_worker_runs(account: Account, token: str, kind: str) -> None:
    assert token
    first = wait_until(lambda: index_lag_ms(account.live, kind), what="a lag")
    wait_until(lambda: index_lag_ms(account.live, kind) > first, what="a greater lag")


def test_lag_includes_parked_changes_and_imports(account: Account) -> None:
    run_sql(account, "INSERT INTO consumers (environment_id) VALUES (:e)", lane="bulk")
    first = wait_until(lambda: index_lag_ms(account.live), what="the import's lag")
    run_sql(account, "UPDATE outbox SET parked_at = now() WHERE environment_id = :e")
    wait_until(lambda: index_lag_ms(account.live) > first, what="the parked change's lag")


def test_lag_is_the_age_of_the_oldest_change(account: Account) -> None:
    for _ in range(2):
        create(account.live)
    old = "UPDATE outbox SET created_at = now() - interval '1 hour' WHERE seq = (SELECT {} FROM outbox WHERE {})"
    mine = "environment_id = :e"
    run_sql(account, old.format("max(seq)", mine))
    run_sql(account, f"UPDATE outbox SET parked_at = now() WHERE seq = (SELECT max(seq) FROM outbox WHERE {mine})")
    assert index_lag_ms(account.live) >= 3_600_000
    run_sql(account, f"UPDATE outbox SET parked_at = now() WHERE {mine}")
    run_sql(account, old.format("min(seq)", mine).replace("1 hour", "2 hours"))
    wait_until(lambda: index_lag_ms(account.live) >= 7_200_000, what="the lag of the older change")


@pytest.mark.parametrize("kind", READS)
def test_lag_is_per_environment(account: Account, service: Service, token: str, kind: str) -> None:
    assert token
    wait_until(lambda: index_lag_ms(account.live, kind), what="a lag")
    assert index_lag_ms(account.test, kind) == 0
    with new_account(service) as other:
        assert index_lag_ms(other.live, kind) == 0


@pytest.fixture
def included(account: Account, token: str) -> str:
    """The path of a consumer that joins a DYNAMIC audience once it is indexed."""
    assert token
    audience = create(account.live, "/audiences", name="A", type="DYNAMIC", filter="fullName:*")
    consumer = create(account.live, fullName="Not Yet")["id"]
    assert account.live.get(f"/audiences/{audience['id']}/count").json()["count"] == 0
    return f"/consumers/{consumer}?include=audiences"


def test_included_audiences_are_marked_stale(account: Account, token: str, included: str) -> None:
    response = account.live.get(included, headers={TOKEN: token, "Prefer": "wait=0"})
    assert response.status_code == 200, response.text
    assert response.json()["audiences"] == []
    assert response.json()["fullName"] == "Not Yet"
    assert response.headers["Index-Stale"] == "true"
    assert response.headers["Preference-Applied"] == "wait=0"
    wait_until(lambda: int(account.live.get(included).headers["Index-Lag-Ms"]) > 0, what="a lag")


def test_strict_read_of_included_audiences_is_503(account: Account, token: str, included: str) -> None:
    headers = {TOKEN: token, "Prefer": "wait=0, handling=strict"}
    response = account.live.get(included, headers=headers)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert TOKEN in response.json()["message"]
    current = account.live.get(included.partition("?")[0], headers=headers)
    assert current.status_code == 200, current.text
    assert not {"index-stale", "index-lag-ms"} & set(current.headers)


def test_included_audiences_refuse_a_malformed_token(account: Account, included: str) -> None:
    assert account.live.get(included, headers={TOKEN: "1-x"}).status_code == 400
