"""Rate limits, per organization, environment and minute (contract.md §1)."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest
import redis
from redis.asyncio import Redis

from api import limits
from api.auth import Caller
from api.limits import FAR, RECENT_SECONDS, Limits
from infra.accounts import keys, organizations
from infra.local.servers import LocalServers
from tests.api.resources import count_rows
from tests.seals import fixed_seal
from tests.service import Account, Database, Service, new_account
from tests.waiting import wait_until

HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
Outage = AbstractContextManager[None]
LIMITS = {"reads": 20, "writes": 10, "batch": 5}


@pytest.fixture
def limited(service: Service) -> Iterator[Account]:
    with new_account(service, limits=LIMITS) as account:
        # A limit's window is a minute of the clock, so a test must stay within the same minute.
        wait_until(lambda: time.time() % 60 < 50, what="a fresh minute")
        yield account


def rate_limit(response: httpx.Response) -> tuple[int, int, int]:
    limit, remaining, reset = (int(response.headers[name]) for name in HEADERS)
    return limit, remaining, reset


def has_limits(response: httpx.Response) -> bool:
    return any(name in response.headers for name in HEADERS)


def test_headers_count_down_to_the_end_of_the_minute(limited: Account) -> None:
    responses = [rate_limit(limited.live.get("/orders")) for _ in range(3)]
    assert [remaining for _, remaining, _ in responses] == [19, 18, 17]
    for limit, _, reset in responses:
        assert limit == LIMITS["reads"]
        assert reset % 60 == 0
        assert 0 < reset - time.time() <= 60


def test_request_over_the_limit_is_refused_until_the_minute_ends(limited: Account) -> None:
    for _ in range(LIMITS["writes"]):
        assert limited.live.post("/consumers", json={}).status_code == 201
    before = time.time()
    refused = limited.live.post("/consumers", content=b"not even JSON")
    after = time.time()
    assert refused.status_code == 429
    seconds = int(refused.headers["retry-after"])
    assert 0 < seconds <= 60
    assert refused.json() == {
        "error": "Rate limit exceeded",
        "code": "rate_limit_exceeded",
        "retryAfter": seconds,
        "requestId": refused.headers["x-request-id"],
    }
    limit, remaining, reset = rate_limit(refused)
    assert (limit, remaining) == (LIMITS["writes"], 0)
    assert reset - after <= seconds <= reset - before + 1
    assert limited.live.get("/orders").status_code == 200


def test_limit_is_exact_though_most_requests_skip_redis(service: Service) -> None:
    limit = 3 * FAR
    with new_account(service, limits={"reads": limit}) as account:
        wait_until(lambda: time.time() % 60 < 40, what="a fresh minute")
        responses = [account.live.get("/orders/none") for _ in range(limit + 1)]
        assert [rate_limit(response)[1] for response in responses] == [*range(limit - 1, -1, -1), 0]
        assert [response.status_code for response in responses] == [404] * limit + [429]


def test_requests_far_from_the_limit_are_reported_to_redis(service: Service) -> None:
    def redis_counts() -> list[int]:
        with redis.Redis.from_url(service.database.settings.redis_url) as client:
            counters = client.keys(f"*:limits*{account.live_environment}:reads:*")
            return [int(client.get(name) or 0) for name in counters]

    with new_account(service, limits={}) as account:
        wait_until(lambda: time.time() % 60 < 50, what="a fresh minute")
        for _ in range(30):
            account.live.get("/orders/none")
        wait_until(lambda: redis_counts() == [30], what="the count")


def test_idle_process_sees_a_limit_used_up_by_another_process(quiet: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WAIT_SECONDS", 10)
    limit = 3 * FAR
    caller = Caller(
        key_id="key",
        environment_id=1,
        mode="live",
        organization_id="org",
        scopes=frozenset(),
        limits={"reads": limit},
        seal=fixed_seal(),
    )

    async def used() -> int:
        async with Redis.from_url(quiet.settings.redis_url) as one, Redis.from_url(quiet.settings.redis_url) as other:
            silent, busy = Limits(quiet.settings, one), Limits(quiet.settings, other)
            await silent.count(caller, "reads")
            started, number = time.monotonic(), 1
            while number <= limit or time.monotonic() - started < RECENT_SECONDS:
                await busy.count(caller, "reads")
                number += 1
            window = await silent.count(caller, "reads")
            assert window
            assert window.exceeded
            return window.used - number

    wait_until(lambda: time.time() % 60 < 50, what="a fresh minute")
    assert asyncio.run(used()) == 1


def test_refused_write_stores_nothing(limited: Account) -> None:
    statuses = [limited.live.post("/consumers", json={}).status_code for _ in range(LIMITS["writes"] + 3)]
    assert statuses.count(201) == LIMITS["writes"]
    assert count_rows(limited) == LIMITS["writes"]


def test_batch_counts_only_against_the_batch_limit(limited: Account) -> None:
    first, second = (limited.live.post("/consumers/batch", json=[{}, {}]) for _ in range(2))
    assert (rate_limit(first)[:2], rate_limit(second)[:2]) == ((5, 4), (5, 3))
    assert rate_limit(limited.live.post("/consumers", json={}))[:2] == (10, 9)
    assert rate_limit(limited.live.post("/orders/batch", json=[]))[:2] == (5, 2)


def test_environments_have_separate_limits(limited: Account) -> None:
    assert rate_limit(limited.live.get("/orders"))[1] == 19
    assert rate_limit(limited.test.get("/orders"))[1] == 19
    assert rate_limit(limited.live.get("/orders"))[1] == 18


def test_keys_of_one_environment_share_its_limit(limited: Account) -> None:
    with limited.database.engine.begin() as connection:
        other = keys.create(connection, limited.name, "live").key
    assert rate_limit(limited.live.get("/orders"))[1] == 19
    assert rate_limit(limited.live.get("/orders", headers={"Authorization": f"Bearer {other}"}))[1] == 18


def test_organization_without_limits_uses_the_defaults(service: Service) -> None:
    with new_account(service, limits={}) as account:
        assert rate_limit(account.live.get("/orders"))[0] == 1000
        assert rate_limit(account.live.post("/consumers", json={}))[0] == 500
        assert rate_limit(account.live.post("/consumers/batch", json=[]))[0] == 100


def test_limit_of_zero_means_unlimited(account: Account) -> None:
    assert not has_limits(account.live.get("/orders"))


def test_changed_limit_applies_within_seconds(limited: Account) -> None:
    assert rate_limit(limited.live.get("/orders"))[0] == 20
    with limited.database.engine.begin() as connection:
        organizations.set_limits(connection, limited.name, {"reads": 0})
    wait_until(lambda: not has_limits(limited.live.get("/orders")), timeout=5, what="the new limit")


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/consumers/none", b"", 404),
        ("GET", "/consumers?first=0", b"", 400),
        ("POST", "/consumers", b"{", 400),
        ("POST", "/consumers", b'{"email": 1}', 400),
        ("OPTIONS", "/consumers", b"", 204),
    ],
)
def test_every_authenticated_response_has_limit_headers(
    limited: Account, method: str, path: str, content: bytes, status: int
) -> None:
    response = limited.live.request(method, path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    assert rate_limit(response)[1] == rate_limit(response)[0] - 1


def test_responses_without_content_have_limit_headers(limited: Account) -> None:
    created = limited.live.post("/consumers", json={})
    unchanged = limited.live.get(
        f"/consumers/{created.json()['id']}", headers={"If-None-Match": created.headers["etag"]}
    )
    assert unchanged.status_code == 304
    assert rate_limit(unchanged)[:2] == (20, 19)


def test_forbidden_request_counts_and_unauthenticated_does_not(limited: Account) -> None:
    with limited.database.engine.begin() as connection:
        narrow = keys.create(connection, limited.name, "live", scopes=["read:orders"]).key
    forbidden = limited.live.post("/consumers", json={}, headers={"Authorization": f"Bearer {narrow}"})
    assert (forbidden.status_code, rate_limit(forbidden)[:2]) == (403, (10, 9))
    unknown = limited.live.get("/orders", headers={"Authorization": "Bearer sk_live_unknown"})
    assert unknown.status_code == 401
    assert not has_limits(unknown)


@contextmanager
def killed(servers: LocalServers) -> Iterator[None]:
    servers.valkey.kill()
    try:
        yield
    finally:
        servers.valkey.start()


@contextmanager
def hanging(servers: LocalServers) -> Iterator[None]:
    os.kill(servers.valkey.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(servers.valkey.pid, signal.SIGCONT)


@pytest.mark.parametrize("outage", [killed, hanging])
def test_requests_pass_uncounted_while_redis_is_away(
    limited: Account, service: Service, servers: LocalServers, outage: Callable[[LocalServers], Outage]
) -> None:
    def lines(event: str) -> int:
        return service.log("api").count(f'"event":"{event}"')

    before = {event: lines(event) for event in ("rate_limits_unavailable", "rate_limits_recovered")}
    assert has_limits(limited.live.get("/orders"))
    with outage(servers):
        responses = [limited.live.get("/orders/none") for _ in range(LIMITS["reads"] + 10)]
        assert {response.status_code for response in responses} == {404}
        assert not any(has_limits(response) for response in responses)
    wait_until(lambda: has_limits(limited.live.get("/orders")), what="the limits")
    assert {event: lines(event) - number for event, number in before.items()} == dict.fromkeys(before, 1)
