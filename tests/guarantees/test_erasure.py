"""Erasure: after a DELETE, and after `consumers org delete`, no trace of the person is left (docs/personal-data.md)."""

from typing import Any

import pytest

from infra.local.servers import LocalServers
from tests.cli import consumers_command
from tests.guarantees.personal_data import EMAIL, NAME, PERSON, PHONE, expunge, places
from tests.service import Account, Service
from tests.waiting import wait_until

SIGN_UP = f"sign-up of {EMAIL}"
"""An idempotency key, as clients make them."""


def leave_traces(account: Account) -> str:
    """Create the person, and use the data in every kind of request; return the person's id."""
    client = account.live
    created = client.post("/consumers", json=PERSON, headers={"Idempotency-Key": SIGN_UP}).raise_for_status()
    consumer = str(created.json()["id"])
    assert client.post("/consumers", json=PERSON).status_code == 400
    order = {"consumer": {"email": EMAIL}, "amount": 1, "metadata": {"deliver to": NAME}}
    client.post("/orders/batch", json=[order] * 3, headers={"Idempotency-Key": "orders"}).raise_for_status()
    batch = [{"email": f"2.{EMAIL}"}, {"metadata": {"again": NAME * 200}}]
    others = client.post("/consumers/batch", json=batch, headers={"Idempotency-Key": "batch"}).raise_for_status().json()
    audience = client.post("/audiences", json={"name": "A", "type": "STATIC"}).raise_for_status().json()["id"]
    client.post(f"/audiences/{audience}/members", json={"consumerIds": [consumer]}).raise_for_status()
    account.settled()
    queries: list[dict[str, Any]] = [{"q": NAME}, {"email": EMAIL}, {"phone": PHONE}]
    for query in queries:
        rows = client.get("/consumers/search", params=query).raise_for_status().json()["data"]
        assert consumer in [row["id"] for row in rows]
    client.get("/consumers", params={"search": "quibblewick", "filter": f'email:"{EMAIL}"'}).raise_for_status()
    assert client.get("/consumers/search", params={"q": NAME, "colour": EMAIL}).status_code == 400
    key = {"Idempotency-Key": f"change of {EMAIL}"}
    client.put(f"/consumers/{consumer}", json={"fullName": f"{NAME} II"}, headers=key).raise_for_status()
    for other in others:
        client.delete(f"/consumers/{other['id']}").raise_for_status()
    with account.database.engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    return consumer


def reindex(account: Account) -> None:
    """Choose the person by a filter, as an operator does, also with a filter that is refused."""
    path, environment = "/ops/index/reindex", f"{account.name}:live"
    body = {"environment": environment, "filter": f'email:"{EMAIL}"'}
    account.operator.post(path, json=body, headers={"Idempotency-Key": "reindex"}).raise_for_status()
    assert account.operator.post(path, json=body | {"filter": f"emial:{EMAIL}"}).status_code == 400

    def is_done() -> bool:
        runs = account.operator.get(path).raise_for_status().json()["runs"]
        return all(run["state"] == "done" for run in runs)

    wait_until(is_done, what="the reindex")


def test_deleted_person_leaves_no_trace(account: Account, service: Service, servers: LocalServers) -> None:
    consumer = leave_traces(account)
    reindex(account)
    account.settled()
    before = {place.kind for place in places(service, servers)}
    assert before == {"table", "index"}
    deletion = {"Idempotency-Key": f"deletion of {EMAIL}"}
    account.live.delete(f"/consumers/{consumer}", headers=deletion).raise_for_status()
    account.settled()
    # The next test searches the files of the same index, because OpenSearch keeps deleted documents for some seconds.
    assert {place for place in places(service, servers) if place.kind != "index"} == set()
    retry = account.live.post("/consumers", json=PERSON, headers={"Idempotency-Key": SIGN_UP})
    assert (retry.status_code, retry.json()["error"]) == (410, "Consumer deleted")
    assert account.live.delete(f"/consumers/{consumer}", headers=deletion).json()["id"] == consumer


def test_deleted_organization_leaves_no_trace(
    account: Account,
    service: Service,
    servers: LocalServers,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    consumers = consumers_command(service.database, monkeypatch, capsys)
    leave_traces(account)
    account.live.post("/audiences", json={"name": NAME, "type": "STATIC"}).raise_for_status()
    rules = [{"field": "email", "operator": "EQUALS", "values": [EMAIL]}]
    account.live.post("/audiences", json={"name": "B", "type": "DYNAMIC", "rules": rules}).raise_for_status()
    account.settled()
    assert {place.kind for place in places(service, servers)} == {"table", "index"}
    refused = consumers("org", "delete", account.name, "--yes", "another")
    assert (refused.code, refused.out) == (1, "")
    assert account.live.get("/consumers").status_code == 200
    result = consumers("org", "delete", account.name, "--yes", account.name)
    assert (result.code, result.err) == (0, "")
    for client in (account.live, account.test):
        assert client.get("/consumers").status_code == 401
    wait_until(lambda: account.name not in consumers("org", "list").out, what="the deletion", timeout=60)
    assert not service.database.documents(account.live_environment)
    assert consumers("index", "verify").code == 0
    expunge(service.database)
    assert places(service, servers) == set()
    assert consumers("org", "create", account.name).code == 0
