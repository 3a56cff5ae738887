"""A request logs a single line without personal data."""

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa

from infra.accounts import keys, operators
from tests.service import Account, Service
from tests.waiting import wait_until

FIELDS = {
    "event",
    "level",
    "timestamp",
    "request_id",
    "key",
    "organization",
    "environment",
    "method",
    "route",
    "status",
    "milliseconds",
}


def lines(service: Service, process: str, request_id: str) -> list[dict[str, Any]]:
    """Return the lines of a process's log that contain a request id."""
    naming = [line for line in service.log(process).splitlines() if request_id in line]
    return [json.loads(line) for line in naming]


def organization_id(account: Account) -> str:
    with account.database.engine.connect() as connection:
        query = sa.text("SELECT organization_id FROM environments WHERE id = :id")
        organization: str = connection.execute(query, {"id": account.live_environment}).scalar_one()
    return organization


def key_id(account: Account, mode: str) -> str:
    with account.database.engine.connect() as connection:
        [key] = [key for key in keys.list_all(connection, account.name) if key.mode == mode]
    return key.id


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/api/v1/consumers/secret@example.com", "/api/v1/consumers/{consumer_id}", 404),
        ("GET", "/api/v1/consumers?search=secret@example.com", "/api/v1/consumers", 200),
        ("GET", "/api/v1/consumers/search?q=s", "/api/v1/consumers/search", 400),
        ("POST", "/api/v1/consumers", "/api/v1/consumers", 400),
        ("HEAD", "/api/v1/consumers", "/api/v1/consumers", 200),
        ("OPTIONS", "/api/v1/consumers", "/api/v1/consumers", 204),
        ("GET", "/nothing/secret@example.com", None, 404),
    ],
)
def test_request_logs_one_line(
    account: Account, service: Service, method: str, path: str, route: str | None, status: int
) -> None:
    request_id = f"test-{uuid4()}"
    headers = {"X-Request-Id": request_id, "Authorization": account.test.headers["authorization"]}
    response = httpx.request(method, f"{service.url}{path}", headers=headers)
    assert (response.status_code, response.headers["x-request-id"]) == (status, request_id)
    [line] = wait_until(lambda: lines(service, "api", request_id), what="the line")
    authenticated = route is not None and route.startswith("/api/")
    assert line.keys() == FIELDS
    assert (line["method"], line["route"], line["status"]) == (method, route, status)
    assert line["key"] == (key_id(account, "test") if authenticated else None)
    assert line["organization"] == (organization_id(account) if authenticated else None)
    assert line["environment"] == ("test" if authenticated else None)
    assert 0 <= line["milliseconds"] < 10_000


@pytest.mark.parametrize("kind", ["merchant", "operator"])
def test_log_line_names_a_refused_key_too(account: Account, service: Service, kind: str) -> None:
    with service.database.engine.begin() as connection:
        if kind == "merchant":
            key = keys.create(connection, account.name, "live")
            path, secret, id_ = "/api/v1/orders", key.key, key.id
        else:
            operator = operators.create(connection)
            path, secret, id_ = "/api/v1/ops/index", operator.key, operator.id

    def line() -> dict[str, Any]:
        request_id = f"test-{uuid4()}"
        headers = {"X-Request-Id": request_id, "Authorization": f"Bearer {secret}"}
        httpx.get(f"{service.url}{path}", headers=headers)
        [written] = wait_until(lambda: lines(service, "api", request_id), what="the line")
        return written

    used = line()
    assert (used["status"], used["key"]) == (200, id_)
    assert (used["organization"] is None) == (kind == "operator")
    with service.database.engine.begin() as connection:
        revoke = keys.revoke if kind == "merchant" else operators.revoke
        revoke(connection, id_)
    refused = wait_until(lambda: (now := line())["status"] == 401 and now, what="the revocation")
    assert (refused["key"], refused["organization"]) == (id_, None)


def test_probes_and_scrapes_log_nothing(account: Account, service: Service) -> None:
    request_id = f"test-{uuid4()}"
    headers = {"X-Request-Id": request_id}
    for path in ("/health/live", "/health/ready", "/metrics"):
        httpx.get(f"{service.operations_url}{path}", headers=headers).raise_for_status()
    account.live.get("/orders", headers=headers)
    [line] = wait_until(lambda: lines(service, "api", request_id), what="the line")
    assert line["route"] == "/api/v1/orders"


def test_every_line_of_every_process_is_an_object_of_json(service: Service) -> None:
    for process in ("api", "worker", "background", "beat"):
        logged = [json.loads(line) for line in service.log(process).splitlines()]
        assert logged
        assert all({"event", "level", "timestamp"} <= line.keys() for line in logged), process


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 129, "{}", "a/b"])
def test_invalid_request_id_is_replaced(service: Service, request_id: str) -> None:
    response = httpx.get(f"{service.url}/health/live", headers={"X-Request-Id": request_id})
    assert response.headers["x-request-id"].startswith("req_")


def test_request_id_is_logged_by_the_worker(account: Account, service: Service) -> None:
    request_id = f"test-{uuid4()}"
    account.live.post("/consumers", json={}, headers={"X-Request-Id": request_id}).raise_for_status()
    account.settled()
    # Beat indexes the changes if the machine lets the worker stand still.
    indexed = wait_until(
        lambda: lines(service, "worker", request_id) or lines(service, "beat", request_id), what="the worker's line"
    )
    assert any(line["event"] == "changes_indexed" and request_id in line["requests"] for line in indexed)


def test_logs_contain_no_key_email_or_phone(account: Account, service: Service) -> None:
    mark = uuid4().hex[:12]
    email, phone, name = f"{mark}@example.com", "+442079460123", f"Name{mark}"
    secret = account.live.headers["authorization"].removeprefix("Bearer ")
    api = account.live
    created = api.post("/consumers", json={"email": email, "phone": phone, "fullName": name}).json()
    api.post("/consumers", json={"email": email})
    api.post("/consumers", json={"email": f"{email} ", "phone": f"{phone}?"})
    api.post("/consumers/batch", json=[{"email": email}, {"phone": phone}])
    api.post("/consumers", content=f'{{"email": "{email}"', headers={"Content-Type": "application/json"})
    api.get("/consumers", params={"search": email})
    api.get("/consumers/search", params={"q": phone, "email": email})
    api.get(f"/consumers/{email}")
    api.post("/orders", json={"consumer": {"email": email}, "amount": "1"})
    api.get("/orders", headers={"Authorization": f"Bearer sk_live_{mark}"})
    api.put(f"/consumers/{created['id']}", json={"phone": "+442079460124"})
    account.settled()
    for process in ("api", "worker", "beat"):
        log = service.log(process)
        leaked = [word for word in (mark, phone, phone[3:], "79460124", secret, secret[8:]) if word in log]
        assert not leaked, (process, leaked)


def test_failure_logs_error_and_location_but_no_values(account: Account, service: Service) -> None:
    mark, request_id = uuid4().hex[:12], f"test-{uuid4()}"
    rule = f"no_{mark}"
    with account.database.engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE consumers ADD CONSTRAINT {rule} CHECK (full_name <> 'Name{mark}')"))
    try:
        body = {"email": f"{mark}@example.com", "fullName": f"Name{mark}"}
        response = account.live.post("/consumers", json=body, headers={"X-Request-Id": request_id})
    finally:
        with account.database.engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE consumers DROP CONSTRAINT {rule}"))
    assert response.status_code == 500
    assert response.json() == {"error": "Internal server error", "code": "internal_error", "requestId": request_id}
    failed = [line for line in lines(service, "api", request_id) if line["event"] == "request_failed"]
    assert failed[0]["exception"][0]["kind"] == f"CheckViolation 23514 {rule}"
    assert any("api/consumers/writes.py" in call for call in failed[0]["exception"][0]["calls"])
    log = service.log("api")
    assert f"Name{mark}" not in log
    assert f"{mark}@" not in log
