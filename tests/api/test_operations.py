"""Operations on the index over HTTP, for operators."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from infra.index import naming
from infra.local.servers import LocalServers
from tests.api.freshness import run_sql
from tests.api.resources import stored_version
from tests.indexer.server_faults import UNPARSABLE_METADATA
from tests.service import UNLIMITED_OPERATORS, Account, Service, new_service
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def service(servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A separate service, because the rebuilds requested here would delay the tests of a shared service."""
    with new_service(servers, tmp_path_factory.mktemp("service"), UNLIMITED_OPERATORS) as running:
        yield running


def status(account: Account) -> Any:
    return account.operator.get("/ops/index").raise_for_status().json()


def finished_rebuild(account: Account) -> Any:
    rebuild = status(account)["rebuild"]
    return rebuild["wanted"] is None and rebuild["phase"] in {"done", "failed", "cancelled"} and rebuild


def test_index_status_is_returned(account: Account) -> None:
    content = status(account)
    fields = {
        "epoch",
        "search",
        "generations",
        "rebuild",
        "parts",
        "waiting",
        "done",
        "workers",
        "parked",
        "verified",
        "running",
        "differing",
    }
    assert fields == set(content)
    assert content["search"] == "ok"
    [live] = [generation for generation in content["generations"] if generation["state"] == "live"]
    assert set(live["aliases"]) == {"read", "write"}


def test_rebuild_is_requested_followed_and_rolled_back(account: Account) -> None:
    created = account.live.post("/consumers", json={"fullName": "Zoë"}).raise_for_status()
    with account.database.engine.begin() as connection:
        # A rebuild of a small index may end before the next request, unless it waits for its slices.
        connection.execute(sa.text("LOCK TABLE generation_slices IN EXCLUSIVE MODE"))
        accepted = account.operator.post("/ops/index/rebuild")
        refused = account.operator.post("/ops/index/rebuild")
    assert accepted.status_code == HTTPStatus.ACCEPTED
    rebuild = accepted.json()
    assert refused.status_code == HTTPStatus.CONFLICT
    assert refused.json()["message"].startswith(f"{rebuild['indexName']} is already being built")
    done = wait_until(lambda: finished_rebuild(account), 60, "the rebuild")
    assert (done["id"], done["phase"], done["state"]) == (rebuild["id"], "done", "live")
    rollback = account.operator.post("/ops/index/rollback")
    assert (rollback.status_code, rollback.json()["wanted"]) == (HTTPStatus.ACCEPTED, "rollback")
    wait_until(lambda: status(account)["generations"][-1]["state"] == "kept", 60, "the rollback")
    token = {"Consistency-Token": created.headers["Consistency-Token"]}
    assert account.live.get("/consumers", headers=token).json()["data"][0]["fullName"] == "Zoë"
    assert account.operator.post("/ops/index/drop").status_code == HTTPStatus.ACCEPTED
    wait_until(lambda: len(status(account)["generations"]) == 1, 60, "the kept index to go")
    for request in ("cancel", "pause", "resume", "rollback", "drop"):
        assert account.operator.post(f"/ops/index/{request}").status_code == HTTPStatus.CONFLICT


def state_of(client: httpx.Client, consumer: str) -> Any:
    return client.get(f"/ops/consumers/{consumer}/index-state").raise_for_status().json()


def test_consumer_index_state_is_returned(account: Account) -> None:
    created = account.live.post(
        "/consumers", json={"fullName": "Zoë"}, headers={"Prefer": "wait=10"}
    ).raise_for_status()
    consumer, version = created.json()["id"], stored_version(account, created.json()["id"])
    state = state_of(account.operator, consumer)
    assert (state["databaseVersion"], state["isSearchable"], state["change"]) == (version, True, None)
    [live] = [each for each in state["generations"] if each["state"] == "live"]
    assert (live["version"], live["isDeleted"]) == (version, False)
    account.live.delete(f"/consumers/{consumer}", headers={"Prefer": "wait=10"}).raise_for_status()
    state = state_of(account.operator, consumer)
    assert (state["databaseVersion"], state["isSearchable"]) == (None, False)
    [live] = [each for each in state["generations"] if each["state"] == "live"]
    assert (live["version"], live["isDeleted"]) == (version + 1, True)


def test_index_state_has_the_reason_of_a_refusal(account: Account) -> None:
    consumer = account.live.post("/consumers", json={"fullName": "Zoë"}).raise_for_status().json()["id"]
    account.settled()
    poison = "UPDATE consumers SET metadata = CAST(:m AS jsonb) WHERE id = :id"
    run_sql(account, poison, id=consumer, m=UNPARSABLE_METADATA)
    operator = account.operator
    state = wait_until(lambda: (now := state_of(operator, consumer))["change"]["error"] and now, what="a refusal")
    assert state["isSearchable"] is False
    assert state["change"]["version"] == state["databaseVersion"]
    assert "mapper_parsing_exception" in state["change"]["error"]
    account.live.delete(f"/consumers/{consumer}").raise_for_status()


def test_parked_changes_are_tried_again(account: Account) -> None:
    consumer = account.live.post("/consumers", json={"fullName": "Zoë"}).raise_for_status().json()["id"]
    account.settled()
    park = """INSERT INTO outbox (environment_id, consumer_id, version, lane, attempts, parked_at)
        SELECT environment_id, id, version, 'live', 5, now() FROM consumers WHERE id = :id"""
    run_sql(account, park, id=consumer)
    for body, retried in (({"ids": ["cons_" + "0" * 26]}, 0), ({"environment": f"{account.name}:live"}, 1)):
        response = account.operator.post("/ops/index/retry-parked", json=body)
        assert (response.status_code, response.json()) == (HTTPStatus.ACCEPTED, {"retried": retried})
    wait_until(lambda: state_of(account.operator, consumer)["change"] is None, what="the drain")
    refused = account.operator.post("/ops/index/retry-parked", json={"environment": "nobody:live"})
    assert refused.status_code == HTTPStatus.BAD_REQUEST


def test_consumer_of_any_environment_is_known_and_further_ids_are_404(account: Account) -> None:
    for client in (account.live, account.test):
        consumer = client.post("/consumers", json={"fullName": "Zoë"}).raise_for_status().json()["id"]
        account.settled()
        assert state_of(account.operator, consumer)["isSearchable"] is True
    for unknown in ("cons_" + "0" * 26, "x"):
        response = account.operator.get(f"/ops/consumers/{unknown}/index-state")
        assert (response.status_code, response.json()["error"]) == (HTTPStatus.NOT_FOUND, "Consumer not found")


def test_document_of_a_foreign_environment_is_not_searchable(account: Account) -> None:
    consumer = account.live.post("/consumers", json={"fullName": "Zoë"}).raise_for_status().json()["id"]
    account.settled()
    index, search = f"{account.database.settings.index_prefix}-0*", account.database.search
    [document] = search.search(index=index, body={"query": {"ids": {"values": [consumer]}}})["hits"]["hits"]
    foreign = {"doc": {"environmentId": str(account.test_environment)}}
    params: dict[str, Any] = {"routing": naming.routing(account.live_environment), "refresh": "true"}
    search.update(index=document["_index"], id=consumer, body=foreign, params=params)
    assert state_of(account.operator, consumer)["isSearchable"] is False


def test_operation_has_neither_token_nor_wait(account: Account) -> None:
    headers = {"Prefer": "wait=10", "Idempotency-Key": "k"}
    environment = {"environment": f"{account.name}:live"}
    responses = [account.operator.post("/ops/index/verify", json=environment, headers=headers) for _ in range(2)]
    assert [response.status_code for response in responses] == [HTTPStatus.ACCEPTED] * 2
    assert responses[0].json() == responses[1].json()
    assert [response.headers.get("Idempotent-Replayed") for response in responses] == [None, "true"]
    for name in ("Consistency-Token", "Index-State", "Preference-Applied"):
        assert name not in responses[0].headers
    other = account.operator.post("/ops/index/repair", json=environment, headers=headers)
    assert other.status_code == HTTPStatus.CONFLICT
