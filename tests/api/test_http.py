"""Rules for every response: authentication, status codes of refusals, headers."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import sqlalchemy as sa

from infra.accounts import keys
from tests.service import Account, Service

LIST = "/api/v1/consumers"


@contextmanager
def client(service: Service, secret: str | None) -> Iterator[httpx.Client]:
    headers = {} if secret is None else {"Authorization": secret}
    with httpx.Client(base_url=service.url, headers=headers, timeout=30) as made:
        yield made


@pytest.mark.parametrize("path", [LIST, f"{LIST}/cons_1", f"{LIST}/search?q=x"])
@pytest.mark.parametrize(
    ("authorization", "error"),
    [
        (None, "Authentication required"),
        ("", "Authentication required"),
        ("Bearer", "Authentication required"),
        ("Basic c2tfbGl2ZTo=", "Authentication required"),
        ("sk_live_nothing", "Authentication required"),
        ("Bearer sk_live_nothing", "Authentication required"),
        ("Bearer sk_test_" + "x" * 5000, "Authentication required"),
        ("Bearer sk_live_é\xff", "Authentication required"),
        ("Bearer pk_live_anything", "Secret key required"),
    ],
)
def test_request_without_a_secret_key_is_401(
    service: Service, path: str, authorization: str | None, error: str
) -> None:
    with client(service, None) as anonymous:
        headers = [] if authorization is None else [("Authorization", authorization.encode("latin-1"))]
        response = anonymous.get(path, headers=headers)  # type: ignore[arg-type]  # httpx also sends bytes
    assert response.status_code == 401
    body = response.json()
    assert list(body) == ["error", "code", "message", "requestId"]
    assert (body["error"], body["code"]) == (error, error.lower().replace(" ", "_"))
    assert body["message"].endswith(": send `Authorization: Bearer sk_…` with a secret key of the environment")
    assert body["requestId"] == response.headers["X-Request-Id"]


@pytest.mark.parametrize("state", ["revoked", "expired"])
def test_revoked_or_expired_key_is_401(service: Service, account: Account, state: str) -> None:
    with account.database.engine.begin() as connection:
        later = datetime.now(UTC) + timedelta(days=1)
        key = keys.create(connection, account.name, "live", expires_at=later)
        if state == "revoked":
            keys.revoke(connection, key.id)
        else:
            past = sa.text("UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = :id")
            connection.execute(past, {"id": key.id})
    with client(service, f"Bearer {key.key}") as late:
        assert late.get(LIST).json()["error"] == "Authentication required"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", LIST, "read:consumers"),
        ("GET", f"{LIST}/cons_1", "read:consumers"),
        ("GET", f"{LIST}/search?q=xx", "read:consumers"),
        ("POST", LIST, "write:consumers"),
        ("POST", "/api/v1/orders", "write:orders"),
        ("POST", "/api/v1/orders/batch", "write:orders"),
    ],
)
def test_key_without_the_scope_is_403_and_names_the_scope(
    service: Service, account: Account, method: str, path: str, scope: str
) -> None:
    others = [one for one in keys.SCOPES if one != scope]
    with account.database.engine.begin() as connection:
        key = keys.create(connection, account.name, "live", scopes=others)
    with client(service, f"Bearer {key.key}") as limited:
        response = limited.request(method, path, content="not even JSON" if method == "POST" else None)
    assert response.status_code == 403
    assert response.json()["error"] == "Forbidden"
    assert scope in response.json()["message"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/v1", "/api/v1/nothing", f"{LIST}/a/b", "/health/x", "/docs/x", "/x/y"]
)
def test_unknown_path_is_404_in_the_error_envelope(service: Service, path: str) -> None:
    response = httpx.get(service.url + path)
    assert response.status_code == 404
    assert response.json() == {
        "error": "Not found",
        "code": "not_found",
        "message": "The paths of the API begin with /api/v1: /docs lists them",
        "requestId": response.headers["X-Request-Id"],
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", LIST), ("PATCH", LIST), ("PUT", "/api/v1/orders/batch"), ("POST", "/health/live"), ("BREW", LIST)],
)
def test_other_method_is_405_with_the_allowed_methods(account: Account, method: str, path: str) -> None:
    response = account.live.request(method, urljoin(str(account.live.base_url), path))
    assert response.status_code == 405
    assert response.json()["error"] == "Method not allowed"
    assert response.headers["Allow"]
    assert response.headers["X-Request-Id"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "json", "a/b;c=d"]
)
@pytest.mark.parametrize("path", ["/consumers", "/orders", "/orders/batch"])
def test_body_of_another_content_type_is_415(account: Account, path: str, kind: str) -> None:
    response = account.live.post(path, content=b"{}", headers={"Content-Type": kind})
    assert response.status_code == 415
    assert response.headers["X-Request-Id"]


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"]
)
def test_every_json_content_type_is_accepted(account: Account, kind: str) -> None:
    assert account.live.post("/consumers", content=b"{}", headers={"Content-Type": kind}).status_code == 201


@pytest.mark.parametrize("path", ["/consumers", "/consumers/cons_1", "/consumers/search", "/orders", "/orders/batch"])
def test_options_lists_the_methods_and_requires_a_key(account: Account, path: str) -> None:
    response = account.live.options(path)
    assert (response.status_code, response.text) == (204, "")
    assert "OPTIONS" in response.headers["Allow"]
    assert httpx.options(urljoin(str(account.live.base_url), path.lstrip("/"))).status_code == 401


@pytest.mark.parametrize("chunked", [False, True])
def test_body_over_10_mib_is_413(account: Account, chunked: bool) -> None:  # noqa: FBT001
    body = b'{"metadata": {"a": "' + b"x" * 10 * 1024 * 1024 + b'"}}'
    pieces = (body[offset : offset + 65536] for offset in range(0, len(body), 65536))
    headers = {"Content-Type": "application/json"}
    response = account.live.post("/consumers", content=pieces if chunked else body, headers=headers)
    assert response.status_code == 413
    assert response.json()["error"] == "Request body too large"


@pytest.mark.parametrize("path", [LIST, "/nothing", f"{LIST}/cons_1", f"{LIST}?first=0", "/health/live", "/docs"])
def test_valid_request_id_is_kept_and_any_other_replaced(account: Account, path: str) -> None:
    address = urljoin(str(account.live.base_url), path)
    assert account.live.get(address, headers={"X-Request-Id": "mine-1.2:3_4"}).headers["X-Request-Id"] == "mine-1.2:3_4"
    for bad in (b"", b"a b", b"x" * 129, b"\xe9", b"<script>", b"a\tb"):
        made = account.live.get(address, headers=[(b"X-Request-Id", bad)]).headers["X-Request-Id"]
        assert made.encode("latin-1") != bad
        assert made.startswith("req_")


@pytest.fixture
def failing(account: Account) -> Iterator[str]:
    """A consumer's name for which the insert (`now`) or the commit (`at commit`) fails."""
    name = f"Boom {account.live_environment}"
    with account.database.engine.begin() as connection:
        connection.exec_driver_sql(f"""
            CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'the secret inside'; END $$;
            CREATE TRIGGER boom BEFORE INSERT ON consumers FOR EACH ROW
                WHEN (NEW.full_name = '{name} now') EXECUTE FUNCTION boom();
            CREATE CONSTRAINT TRIGGER late_boom AFTER INSERT ON consumers DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
                WHEN (NEW.full_name = '{name} at commit') EXECUTE FUNCTION boom()""")
    yield name
    with account.database.engine.begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION boom CASCADE")


@pytest.mark.parametrize("moment", ["now", "at commit"])
def test_failed_insert_or_commit_is_500_and_stores_nothing(account: Account, failing: str, moment: str) -> None:
    response = account.live.post("/consumers", json={"fullName": f"{failing} {moment}"})
    assert response.status_code == 500
    assert response.json() == {
        "error": "Internal server error",
        "code": "internal_error",
        "requestId": response.headers["X-Request-Id"],
    }
    account.settled()
    assert account.live.get("/consumers").json()["data"] == []


def test_response_is_compressed_on_request(account: Account) -> None:
    for _ in range(10):
        account.live.post("/consumers", json={"fullName": "Somebody"})
    account.settled()
    plain = account.live.get("/consumers", headers={"Accept-Encoding": "identity"})
    packed = account.live.get("/consumers", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["Vary"] == "Accept-Encoding"
    assert packed.content == plain.content


@pytest.mark.parametrize(
    "path", [LIST, "/nothing", f"{LIST}/cons_1", f"{LIST}?first=0", "/health/live", "/docs", "/metrics"]
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "BREW"])
def test_no_response_may_be_cached_or_interpreted(account: Account, method: str, path: str) -> None:
    headers = account.live.request(method, urljoin(str(account.live.base_url), path)).headers
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")


def test_no_cors_header_is_sent(account: Account) -> None:
    response = account.live.get("/consumers", headers={"Origin": "https://example.com"})
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_health_reports_each_dependency(service: Service) -> None:
    public = httpx.get(f"{service.url}/health/ready").json()
    assert public == dict.fromkeys(("status", "database", "search", "queue"), "ok")
    ready: dict[str, Any] = httpx.get(f"{service.operations_url}/health/ready").json()
    assert ready.pop("indexLagMs") >= 0
    assert ready == public
    for url in (service.url, service.operations_url):
        assert httpx.get(f"{url}/health/live").json() == {"status": "ok"}
        assert httpx.get(f"{url}/health/ready?for=reads").status_code == 200


@pytest.mark.parametrize(("query", "field"), [("for=everything", "for"), ("purpose=reads", "purpose")])
def test_unknown_purpose_of_readiness_is_refused(service: Service, query: str, field: str) -> None:
    response = httpx.get(f"{service.url}/health/ready?{query}")
    assert (response.status_code, [fault["field"] for fault in response.json()["details"]]) == (400, [field])


def test_documentation_needs_no_other_server(service: Service) -> None:
    document = httpx.get(f"{service.url}/openapi.json").json()
    assert {"/api/v1/consumers", "/api/v1/orders/batch", "/health/ready"} <= document["paths"].keys()
    shown = httpx.get(f"{service.url}/docs").text
    assert "//" not in shown.split("SwaggerUIBundle")[0].replace("</", "")
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "swagger-ui-standalone-preset.js", "favicon-32x32.png"):
        assert f'"/docs/assets/{asset}"' in shown
        assert httpx.get(f"{service.url}/docs/assets/{asset}").is_success


@pytest.mark.parametrize(
    ("collection", "body"),
    [
        ("consumers", {"externalId": "another"}),
        ("orders", {"consumer": {"externalId": "buyer"}, "amount": 1}),
        ("audiences", {"name": "Friends", "type": "STATIC"}),
    ],
)
def test_created_resource_has_its_path_in_location(account: Account, collection: str, body: dict[str, Any]) -> None:
    account.live.post("/consumers", json={"externalId": "buyer"}).raise_for_status()
    for _ in range(2):  # the second response is a replay
        response = account.live.post(f"/{collection}", json=body, headers={"Idempotency-Key": "k1"})
        assert response.status_code == 201
        assert response.headers["Location"] == f"/api/v1/{collection}/{response.json()['id']}"
    path = urljoin(str(account.live.base_url), response.headers["Location"])
    assert account.live.get(path).json()["id"] == response.json()["id"]
