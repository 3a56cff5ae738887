"""Validity of keys (contract.md §1 "Authentication")."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from infra.accounts import keys
from infra.accounts.keys import NewKey
from tests.service import Account, Service
from tests.waiting import wait_until

AUTHENTICATION, SECRET = "Authentication required", "Secret key required"
REVOKED_SECONDS = 5


def new_key(account: Account, **options: Any) -> NewKey:
    with account.database.engine.begin() as connection:
        return keys.create(connection, account.name, "live", **options)


@contextmanager
def client(service: Service, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{service.url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=30) as made:
        yield made


def is_refused(http: httpx.Client) -> bool:
    response = http.get("/orders")
    assert response.status_code in {200, 401}
    return response.status_code == 401 and response.json()["error"] == AUTHENTICATION


def test_revoked_key_stops_working_within_seconds(service: Service, account: Account) -> None:
    key = new_key(account)
    with client(service, key.key) as http:
        assert not is_refused(http)
        with account.database.engine.begin() as connection:
            keys.revoke(connection, key.id)
        wait_until(lambda: is_refused(http), timeout=REVOKED_SECONDS, what="the revocation")
        assert is_refused(http)


def test_rotated_key_is_replaced_by_the_new_key(service: Service, account: Account) -> None:
    key = new_key(account, scopes=["read:orders"])
    with client(service, key.key) as http:
        assert not is_refused(http)
        with account.database.engine.begin() as connection:
            new = keys.rotate(connection, key.id)
        with client(service, new.key) as renewed:
            assert not is_refused(renewed)
        wait_until(lambda: is_refused(http), timeout=REVOKED_SECONDS, what="the old key to be refused")


def test_key_expires_at_its_expiry_time(service: Service, account: Account) -> None:
    expires = datetime.now(UTC) + timedelta(seconds=2)
    with client(service, new_key(account, expires_at=expires).key) as http:
        wait_until(lambda: is_refused(http), timeout=10, what="the key's expiry")
    assert datetime.now(UTC) >= expires


def test_new_key_works_at_once(service: Service, account: Account) -> None:
    for _ in range(5):
        with client(service, new_key(account).key) as http:
            assert not is_refused(http)


def test_last_use_of_a_key_survives_a_restart(service: Service, account: Account) -> None:
    used, unused = new_key(account), new_key(account)
    started = datetime.now(UTC)

    def last_use(key: NewKey) -> datetime | None:
        with account.database.engine.connect() as connection:
            [stored] = [one for one in keys.list_all(connection, account.name) if one.id == key.id]
        return stored.last_used_at

    with client(service, used.key) as http:
        for _ in range(3):
            assert not is_refused(http)
    with client(service, unused.key[:-1]) as http:
        assert is_refused(http)
    service.stop("api")
    service.start("api")
    stored = wait_until(lambda: last_use(used), what="the key's last use")
    assert stored
    assert abs(stored - started) < timedelta(minutes=2)
    assert last_use(unused) is None


@pytest.mark.parametrize(
    "header",
    [
        *("", "Bearer", "Bearer ", "{}", "Basic {}", "Token {}", "Bearer{}", "Bearer\t{}", "Bearer:{}", "Bearer '{}'"),
        *("Bearer {} x", "Bearer {},", "Bearer {}x", "Bearer x{}", "Bearer Bearer {}", "Bearer token={}"),
        *("Bearer sk_", "Bearer sk_live_", "Bearer sk_test_", "Bearer null", "Bearer \xff", "Bearer SK_LIVE_x"),
        *("pk_live_x", "Basic pk_live_x", "Bearer PK_live_x", "Bearer rk_live_x", "Bearer " + "x" * 7000),
    ],
)
def test_malformed_authorization_header_is_401(service: Service, account: Account, header: str) -> None:
    headers = [(b"Authorization", header.format(new_key(account).key).strip().encode("latin-1"))]
    response = httpx.get(f"{service.url}/api/v1/orders", headers=headers)
    assert response.status_code == 401
    body = response.json()
    assert (body["error"], body["code"]) == (AUTHENTICATION, "authentication_required")
    assert body.keys() == {"error", "code", "message", "requestId"}
    assert body["requestId"] == response.headers["X-Request-Id"]
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_bearer_scheme_is_case_insensitive(service: Service, account: Account, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {new_key(account).key}"}
    assert httpx.get(f"{service.url}/api/v1/orders", headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["pk_live_x", "pk_test_x", "pk_", "pk_live_" + "x" * 5000])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_publishable_key_is_refused_with_its_own_message(service: Service, method: str, key: str) -> None:
    with client(service, key) as http:
        response = http.request(method, "/consumers", content=b"{")
    assert (response.status_code, response.json()["error"]) == (401, SECRET)


def test_live_key_is_refused_as_a_test_key(service: Service, account: Account) -> None:
    with client(service, new_key(account).key.replace("sk_live_", "sk_test_")) as http:
        assert is_refused(http)
