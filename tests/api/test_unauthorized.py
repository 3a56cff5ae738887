"""Requests without a valid key cost little, and are limited by the client's address."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from redis.asyncio import Redis

from api import auth
from api.auth import UNKNOWN_LOOKUPS, Keys
from api.limits import Limits, Window
from api.seals import Seals
from infra.accounts import keys
from infra.accounts.key_secrets import new_secret, secret_hash
from infra.database.engine import open_async_engine
from infra.local import ports
from infra.settings import Settings
from tests.service import Account, Database, PatientService, Service, new_account
from tests.waiting import wait_until

LIMIT = 10
_addresses = count(1)


def random_secret() -> str:
    """Return a text with the form of a key of an earlier release."""
    return f"sk_live_{secrets.token_urlsafe(32)}"


def new_key(account: Account, secret: str | None = None) -> str:
    with account.database.engine.begin() as connection:
        made = keys.create(connection, account.name, "live")
        if secret:
            update = sa.text("UPDATE api_keys SET secret_hash = :secret_hash WHERE id = :id")
            connection.execute(update, {"secret_hash": secret_hash(secret), "id": made.id})
    return secret or made.key


@pytest.fixture(scope="module")
def limited(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A further API process on the database of the shared service, behind a proxy."""
    environ = {"LIMIT_UNAUTHORIZED": str(LIMIT), "TRUSTED_PROXIES": "127.0.0.1"}
    running = PatientService(service.database.on_other_ports(), tmp_path_factory.mktemp("limited"), environ)
    running.start("api")
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def address() -> str:
    """An address of a client from which no request came yet."""
    wait_until(lambda: time.time() % 60 < 50, what="a fresh minute")
    return f"203.0.113.{next(_addresses)}"


@contextmanager
def from_address(service: Service, address: str) -> Iterator[httpx.Client]:
    headers = {"X-Forwarded-For": f"198.51.100.1, {address}"}
    with httpx.Client(base_url=f"{service.url}/api/v1", headers=headers, timeout=30) as client:
        yield client


def request(client: httpx.Client, secret: str) -> httpx.Response:
    return client.get("/orders/none", headers={"Authorization": f"Bearer {secret}"})


@contextmanager
def no_lookups(database: Database) -> Iterator[None]:
    """Make every look-up of a key wait."""
    with database.engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE api_keys, operator_keys IN ACCESS EXCLUSIVE MODE"))
        yield


def exceed_limit(client: httpx.Client) -> None:
    for _ in range(LIMIT):
        assert request(client, "sk_live_x").status_code == 401
    assert request(client, "sk_live_x").status_code == 429


def test_secret_of_an_earlier_release_is_valid(limited: Service, account: Account) -> None:
    with from_address(limited, "203.0.113.0") as client:
        assert request(client, new_key(account, random_secret())).status_code == 404


@pytest.mark.parametrize("prefix", ["sk_live_", "sk_test_", "op_"])
def test_wrong_checksum_is_refused_without_a_query(limited: Service, prefix: str) -> None:
    secret = new_secret(prefix)
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    with no_lookups(limited.database), from_address(limited, "203.0.113.0") as client:
        assert request(client, wrong).status_code == 401


def test_address_over_the_limit_is_refused_without_a_query(limited: Service, account: Account, address: str) -> None:
    used, unused = new_key(account), new_key(account)
    with ExitStack() as stack:
        client, other = (stack.enter_context(from_address(limited, name)) for name in (address, "203.0.113.0"))
        assert request(client, used).status_code == 404
        exceed_limit(client)
        with no_lookups(limited.database):
            refused = [request(client, secret) for secret in (random_secret(), new_secret("op_"), "x", unused)]
        assert {response.status_code for response in refused} == {429}
        seconds = int(refused[0].headers["retry-after"])
        assert 0 < seconds <= 60
        assert refused[0].json() == {
            "error": "Rate limit exceeded",
            "code": "rate_limit_exceeded",
            "message": f"More than {LIMIT} requests a minute without a valid key came from this address",
            "retryAfter": seconds,
            "requestId": refused[0].headers["x-request-id"],
        }
        # A key in use shares the address, and others have other addresses.
        assert request(client, used).status_code == 404
        assert request(other, unused).status_code == 404
        assert request(other, random_secret()).status_code == 401


def test_addresses_of_an_ipv6_network_are_a_single_client(limited: Service, address: str) -> None:
    network = f"2001:db8:0:{int(address.rpartition('.')[2]):x}"
    with ExitStack() as stack:
        one, other, foreign = (
            stack.enter_context(from_address(limited, name))
            for name in (f"{network}::1", f"{network}:ffff::2", "2001:db8:ffff::1")
        )
        exceed_limit(one)
        assert request(other, "sk_live_x").status_code == 429
        assert request(foreign, "sk_live_x").status_code == 401


def test_untrusted_client_cannot_name_another_address(limited: Service, address: str) -> None:
    """The trusted proxy is the last that added an address; the client itself may have sent those before."""
    with ExitStack() as stack:
        client = stack.enter_context(from_address(limited, address))
        exceed_limit(client)
        client.headers["X-Forwarded-For"] = f"192.0.2.1, {address}, 127.0.0.1"
        assert request(client, "sk_live_x").status_code == 429


def test_random_secrets_use_few_connections_and_displace_no_key(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "CACHE_KEYS", 5)

    async def look_up(known: str) -> None:
        engine = open_async_engine(service.database.settings)
        connections = [0]
        sa.event.listen(engine.sync_engine, "checkout", lambda *_: connections.append(engine.pool.checkedout()))  # type: ignore[attr-defined]
        api_keys = Keys(engine, Seals(engine))
        assert await api_keys.find(known)
        assert not any(await asyncio.gather(*(api_keys.find(random_secret()) for _ in range(20))))
        assert api_keys.has_seen(known)
        assert max(connections) <= UNKNOWN_LOOKUPS
        await engine.dispose()

    with new_account(service) as account:
        asyncio.run(look_up(new_key(account)))


def test_no_address_is_limited_while_redis_is_away() -> None:
    settings = msgspec.convert(
        {
            "database_url": "postgres://x",
            "redis_url": f"redis://127.0.0.1:{ports.pick()}/0",
            "opensearch_url": "http://x",
        },
        Settings,
    )

    async def windows() -> list[Window | None]:
        async with Redis.from_url(settings.redis_url, retry=None) as redis:
            limits = Limits(settings, redis)
            counted = [await limits.count_unauthorized("203.0.113.1") for _ in range(settings.limit_unauthorized + 2)]
            return [*counted, limits.exceeded_unauthorized("203.0.113.1")]

    assert not any(asyncio.run(windows()))
