"""Operators' keys open the operations and nothing else; merchants' keys open no operation (contract.md §1)."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from infra.accounts import keys, operators
from infra.accounts.operators import NewOperatorKey
from tests.api.resources import create
from tests.endpoints import merchant_endpoints, operator_endpoints
from tests.service import Account, Service
from tests.waiting import wait_until

REVOKED_SECONDS = 5


def new_operator(service: Service, **options: Any) -> NewOperatorKey:
    with service.database.engine.begin() as connection:
        return operators.create(connection, **options)


@contextmanager
def client(service: Service, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as made:
        yield made


def address(path: str) -> str:
    return path.replace("{", "").replace("}", "")


def query_rows(service: Service, query: str, **values: Any) -> Any:
    with service.database.engine.connect() as connection:
        return connection.execute(sa.text(query), values).all()


def is_refused(http: httpx.Client) -> bool:
    response = http.get("/api/v1/ops/index/verify")
    assert response.status_code in {200, 401}
    return response.status_code == 401


def test_merchant_key_opens_no_operation(service: Service, account: Account) -> None:
    runs = "SELECT count(*) FROM verifications WHERE kind <> 'watch'"
    before = query_rows(service, runs)
    for endpoint in operator_endpoints():
        response = account.live.request(endpoint.method, f"{service.url}{address(endpoint.path)}", content=b"{")
        assert response.status_code == 403, endpoint.path
        assert response.json()["error"] == "Forbidden"
        assert "`consumers operator create`" in response.json()["message"]
    assert query_rows(service, runs) == before


def test_dry_run_of_a_reindex_counts_nothing_for_a_merchant(account: Account) -> None:
    create(account.test, email="ann@example.com")
    account.settled()
    body = {"environment": f"{account.name}:test", "filter": "email:ann@example.com", "dryRun": True}
    refused = account.live.post("/ops/index/reindex", json=body)
    assert refused.status_code == 403
    assert "consumers" not in refused.json()
    assert account.operator.post("/ops/index/reindex", json=body).json()["consumers"] == 1


@pytest.mark.parametrize(
    ("path", "options", "most"), [("reindex", {"dryRun": True}, 10_000), ("retry-parked", {}, 1_000)]
)
def test_as_many_ids_as_documented_fit_into_a_body(
    account: Account, path: str, options: dict[str, Any], most: int
) -> None:
    unknown = [f"cons_{number:026}" for number in range(most)]
    accepted = account.operator.post(f"/ops/index/{path}", json={"ids": unknown, **options})
    assert accepted.is_success, accepted.text
    refused = account.operator.post(f"/ops/index/{path}", json={"ids": [*unknown, "cons_"], **options})
    assert refused.status_code == 400
    assert refused.json()["details"][0]["field"] == "ids"


def test_operator_key_opens_no_merchant_route(service: Service, account: Account) -> None:
    for endpoint in merchant_endpoints():
        response = account.operator.request(endpoint.method, f"{service.url}{address(endpoint.path)}", content=b"{")
        assert response.status_code == 403, endpoint.path
        assert response.json()["error"] == "Forbidden"
        assert "/api/v1/ops" in response.json()["message"]
        assert "sk_" in response.json()["message"]


def test_operator_key_opens_every_operation(service: Service, account: Account) -> None:
    for endpoint in operator_endpoints():
        if endpoint.method == "POST" and not endpoint.body:
            continue  # would start the operation: tests/api/test_operations.py covers those routes
        response = account.operator.request(endpoint.method, f"{service.url}{address(endpoint.path)}", content=b"{")
        assert response.status_code not in {401, 403}, endpoint.path


def test_key_with_the_removed_scope_admin_works_for_its_other_scopes(service: Service, account: Account) -> None:
    with service.database.engine.begin() as connection:
        key = keys.create(connection, account.name, "live", scopes=["read:orders"])
        update = sa.text("UPDATE api_keys SET scopes = scopes || '{admin}' WHERE id = :id")
        connection.execute(update, {"id": key.id})
    with client(service, key.key) as http:
        assert http.get("/api/v1/orders").status_code == 200
        refused = http.get("/api/v1/ops/index")
    assert refused.status_code == 403
    assert "scope admin" in refused.json()["message"]
    assert "`consumers operator create`" in refused.json()["message"]


def test_revoked_operator_key_stops_working_within_seconds(service: Service) -> None:
    key = new_operator(service)
    with client(service, key.key) as http:
        assert not is_refused(http)
        with service.database.engine.begin() as connection:
            operators.revoke(connection, key.id)
        wait_until(lambda: is_refused(http), timeout=REVOKED_SECONDS, what="the revocation")
        refused = http.get("/api/v1/ops/index")
    assert refused.json()["error"] == "Authentication required"
    assert "`consumers operator create`" in refused.json()["message"]
    assert refused.headers["WWW-Authenticate"] == "Bearer"


def test_operator_key_expires_at_its_expiry_time(service: Service) -> None:
    expires = datetime.now(UTC) + timedelta(seconds=2)
    with client(service, new_operator(service, expires_at=expires).key) as http:
        wait_until(lambda: is_refused(http), timeout=10, what="the key's expiry")
    assert datetime.now(UTC) >= expires


@pytest.mark.parametrize("key", ["op_", "op_x", "op_live_x", "op_" + "x" * 43, "OP_x"])
@pytest.mark.parametrize("path", ["/api/v1/ops/index", "/api/v1/orders"])
def test_unknown_operator_key_is_401(service: Service, path: str, key: str) -> None:
    with client(service, key) as http:
        response = http.get(path)
    assert (response.status_code, response.json()["error"]) == (401, "Authentication required")


@pytest.mark.parametrize("prefix", ["sk_live_", "sk_test_"])
def test_operator_key_with_a_merchants_prefix_is_401(service: Service, prefix: str) -> None:
    with client(service, new_operator(service).key.replace("op_", prefix, 1)) as http:
        assert is_refused(http)


def test_last_use_of_an_operator_key_is_stored(service: Service) -> None:
    used, unused = new_operator(service), new_operator(service)
    with client(service, used.key) as http:
        assert not is_refused(http)
    service.stop("api")
    service.start("api")
    query = "SELECT last_used_at FROM operator_keys WHERE id = :id"
    [(last_use,)] = query_rows(service, query, id=used.id)
    assert abs(last_use - datetime.now(UTC)) < timedelta(minutes=2)
    assert query_rows(service, query, id=unused.id) == [(None,)]


def test_operator_keys_have_limits_of_their_own(service: Service, account: Account) -> None:
    settings = service.database.settings
    wait_until(lambda: datetime.now(UTC).second < 50, what="a fresh minute")
    with client(service, new_operator(service).key) as first, client(service, new_operator(service).key) as second:
        for http in (first, second):
            remaining = [int(http.get("/api/v1/ops/index/verify").headers["X-RateLimit-Remaining"]) for _ in range(2)]
            assert remaining == [settings.limit_reads - 1, settings.limit_reads - 2]
        response = first.post("/api/v1/ops/index/verify", content=b"{")
        assert response.headers["X-RateLimit-Limit"] == str(settings.limit_writes)
    assert "X-RateLimit-Limit" not in account.live.get("/orders").headers


def test_operators_have_idempotency_keys_of_their_own(service: Service, account: Account) -> None:
    body, headers = {"environment": f"{account.name}:live"}, {"Idempotency-Key": "k"}
    account.live.post("/consumers", json={}, headers=headers).raise_for_status()
    with client(service, new_operator(service).key) as first, client(service, new_operator(service).key) as second:
        responses = [
            http.post("/api/v1/ops/index/verify", json=body, headers=headers).raise_for_status()
            for http in (first, first, second)
        ]
    assert [response.headers.get("Idempotent-Replayed") for response in responses] == [None, "true", None]
