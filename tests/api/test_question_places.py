"""One live question of an environment at a time, whichever process of the API was asked (contract.md §6)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest

from api import budget
from api.analytics.places import Places
from api.auth import Requester
from api.budget import Budget
from infra.database.engine import open_async_engine
from infra.redis_client import open_async_redis
from infra.settings import Settings
from tests.service import Account

NOWHERE = "redis://127.0.0.1:1/0"
PAUSE_SECONDS = 8.0
"""Longer than a question waits, and short enough for the next test, whose questions need one of the two places."""


@asynccontextmanager
async def other_process(settings: Settings) -> AsyncIterator[Places]:
    """The places as another process of the API has them."""
    engine, redis = open_async_engine(settings, pool_size=1), open_async_redis(settings, seconds=1, retry=None)
    try:
        yield Places(settings, redis, Budget(engine, searches=1, connections=1))
    finally:
        await redis.aclose()
        await engine.dispose()


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/analytics/consumers/_search", json={"size": 0})


def test_question_waits_for_a_question_in_another_process(account: Account) -> None:
    asker = Requester(key_id=str(account.live_environment))

    async def work() -> None:
        async with other_process(account.database.settings) as places:
            async with places.hold(asker):
                refused = await asyncio.to_thread(ask, account.live)
                other = await asyncio.to_thread(ask, account.test)
                waiting = asyncio.create_task(asyncio.to_thread(ask, account.live))
            assert (refused.status_code, other.status_code) == (429, 200)
            assert refused.headers["Retry-After"]
            assert (await waiting).status_code == 200

    asyncio.run(work())


def test_question_needs_no_redis(account: Account) -> None:
    asker = Requester(key_id=str(account.live_environment))

    async def work() -> None:
        settings = msgspec.structs.replace(account.database.settings, redis_url=NOWHERE)
        async with other_process(settings) as places, places.hold(asker):
            pass
        assert (await asyncio.to_thread(ask, account.live)).status_code == 200

    asyncio.run(work())


def test_two_questions_of_all_environments_run_at_a_time(account: Account) -> None:
    async def work() -> None:
        async with other_process(account.database.settings) as places:
            async with places.hold(Requester(key_id="one")), places.hold(Requester(key_id="two")):
                assert (await asyncio.to_thread(ask, account.live)).status_code == 429
            assert (await asyncio.to_thread(ask, account.live)).status_code == 200

    asyncio.run(work())


def test_places_stay_taken_after_a_question_beside_other_environments(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "QUESTION_PAUSE", 10**9)
    monkeypatch.setattr(budget, "LONGEST_QUESTION_PAUSE_SECONDS", PAUSE_SECONDS)

    async def work() -> None:
        async with other_process(account.database.settings) as places:
            asker, other = (Requester(key_id=key) for key in (str(account.live_environment), "other"))
            async with places.hold(asker), places.hold(other):
                pass
            assert (await asyncio.to_thread(ask, account.live)).status_code == 429

    asyncio.run(work())
