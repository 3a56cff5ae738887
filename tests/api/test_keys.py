"""Keys as the API sees them (contract.md §1): who may do what, and when a key was last used."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import sqlalchemy as sa

from api.auth import Keys
from infra import db, keys
from infra.keys import DEFAULT_SCOPES, NewKey
from infra.organizations import Mode
from tests.service import Account, Service
from tests.waiting import wait_until

METHODS: dict[str, tuple[str, dict[str, str] | None]] = {"read": ("GET", None), "write": ("POST", {})}


def new_key(account: Account, mode: Mode = "live", scopes: Sequence[str] = DEFAULT_SCOPES) -> NewKey:
    with account.database.engine.begin() as connection:
        return keys.create(connection, account.name, mode, scopes=scopes)


def get(account: Account, authorization: str) -> httpx.Response:
    return account.live.get("/orders", headers={"Authorization": authorization})


def last_use(account: Account, key: NewKey) -> datetime | None:
    with account.database.engine.connect() as connection:
        query = sa.text("SELECT last_used_at FROM api_keys WHERE id = :id")
        found: datetime | None = connection.execute(query, {"id": key.id}).scalar_one()
    return found


@pytest.mark.parametrize(
    ("authorization", "error"),
    [
        ("", "Authentication required"),
        ("Bearer", "Authentication required"),
        ("Bearer sk_live_unknown", "Authentication required"),
        ("Basic sk_live_unknown", "Authentication required"),
        ("Bearer something", "Authentication required"),
        ("Bearer pk_live_unknown", "Secret key required"),
    ],
)
def test_request_without_a_valid_key_is_a_401(account: Account, authorization: str, error: str) -> None:
    answer = get(account, authorization)
    assert (answer.status_code, answer.json()["error"]) == (401, error)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_scheme_is_read_in_any_case(account: Account) -> None:
    assert get(account, f"bEARER {new_key(account).key}").status_code == 200


@pytest.mark.parametrize("resource", ["consumers", "orders", "audiences"])
@pytest.mark.parametrize("action", ["read", "write"])
def test_key_without_the_scope_is_forbidden_and_told_which(account: Account, resource: str, action: str) -> None:
    scope = f"{action}:{resource}"
    method, body = METHODS[action]
    without = new_key(account, scopes=[other for other in DEFAULT_SCOPES if other != scope]).key
    answer = account.live.request(method, f"/{resource}", json=body, headers={"Authorization": f"Bearer {without}"})
    assert (answer.status_code, answer.json()["error"]) == (403, "Forbidden")
    assert scope in answer.json()["message"]
    only = new_key(account, scopes=[scope]).key
    answer = account.live.request(method, f"/{resource}", json=body, headers={"Authorization": f"Bearer {only}"})
    assert answer.status_code in {200, 201, 400}


def test_revoked_key_stops_working_within_five_seconds(account: Account) -> None:
    key = new_key(account)
    assert get(account, f"Bearer {key.key}").status_code == 200
    with account.database.engine.begin() as connection:
        keys.revoke(connection, key.id)
    wait_until(lambda: get(account, f"Bearer {key.key}").status_code == 401, timeout=5, what="the revocation")


def test_key_ends_at_the_moment_it_expires_though_it_is_known(account: Account) -> None:
    with account.database.engine.begin() as connection:
        expires_at = datetime.now(UTC) + timedelta(seconds=1.5)
        key = keys.create(connection, account.name, "live", expires_at=expires_at)
    assert get(account, f"Bearer {key.key}").status_code == 200
    wait_until(lambda: get(account, f"Bearer {key.key}").status_code == 401, timeout=3, what="the end of the key")
    assert datetime.now(UTC) >= expires_at


def test_last_use_is_remembered_and_stored_once_not_with_every_request(account: Account) -> None:
    key, unused = new_key(account), new_key(account)

    async def use() -> list[datetime | None]:
        engine = db.async_engine(account.database.settings)
        known, seen = Keys(engine), []
        for _ in range(3):
            assert await known.caller(key.key)
            seen.append(last_use(account, key))
        await known.store_uses()
        seen.append(last_use(account, key))
        await known.store_uses()
        seen.append(last_use(account, key))
        await engine.dispose()
        return seen

    before = datetime.now(UTC) - timedelta(milliseconds=1)
    *early, stored, later = asyncio.run(use())
    assert early == [None, None, None]
    assert stored is not None
    assert before <= stored <= datetime.now(UTC)
    assert later == stored
    assert last_use(account, unused) is None


def test_last_use_that_cannot_be_stored_is_stored_later(account: Account) -> None:
    key = new_key(account)

    async def use() -> None:
        engine = db.async_engine(account.database.settings)
        known = Keys(engine)
        assert await known.caller(key.key)
        with account.database.engine.begin() as connection:
            connection.execute(sa.text("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE"))
            await known.store_uses()
        assert last_use(account, key) is None
        await known.store_uses()
        await engine.dispose()

    asyncio.run(use())
    assert last_use(account, key) is not None


def test_last_use_is_stored_when_the_api_ends(account: Account, service: Service) -> None:
    key = new_key(account)
    assert get(account, f"Bearer {key.key}").status_code == 200
    service.stop("api")
    try:
        assert last_use(account, key) is not None
    finally:
        service.start("api")
