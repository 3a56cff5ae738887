"""Time of a key's last use: kept in memory, and stored without a write per request."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import httpx
import sqlalchemy as sa

from api.auth import Keys
from api.seals import Seals
from infra.accounts import keys
from infra.accounts.keys import SCOPES, NewKey
from infra.accounts.organizations import Mode
from infra.database.engine import open_async_engine
from tests.service import Account, Service


def new_key(account: Account, mode: Mode = "live", scopes: Sequence[str] = SCOPES) -> NewKey:
    with account.database.engine.begin() as connection:
        return keys.create(connection, account.name, mode, scopes=scopes)


def get(account: Account, authorization: str) -> httpx.Response:
    return account.live.get("/orders", headers={"Authorization": authorization})


def last_use(account: Account, key: NewKey) -> datetime | None:
    with account.database.engine.connect() as connection:
        query = sa.text("SELECT last_used_at FROM api_keys WHERE id = :id")
        moment: datetime | None = connection.execute(query, {"id": key.id}).scalar_one()
    return moment


async def use_key(known: Keys, key: NewKey) -> None:
    requester = await known.find(key.key)
    assert requester
    assert requester.is_valid()
    known.note_use(requester)


def test_last_use_is_stored_in_batches_not_per_request(account: Account) -> None:
    key, unused = new_key(account), new_key(account)

    async def use() -> list[datetime | None]:
        engine = open_async_engine(account.database.settings)
        known, seen = Keys(engine, Seals(engine)), []
        for _ in range(3):
            await use_key(known, key)
            seen.append(last_use(account, key))
        await known.store_last_uses()
        seen.append(last_use(account, key))
        await known.store_last_uses()
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


def test_last_use_is_stored_later_if_the_table_is_locked(account: Account) -> None:
    key = new_key(account)

    async def use() -> None:
        engine = open_async_engine(account.database.settings)
        known = Keys(engine, Seals(engine))
        await use_key(known, key)
        with account.database.engine.begin() as connection:
            connection.execute(sa.text("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE"))
            await known.store_last_uses()
        assert last_use(account, key) is None
        await known.store_last_uses()
        await engine.dispose()

    asyncio.run(use())
    assert last_use(account, key) is not None


def test_last_use_is_stored_when_the_api_stops(account: Account, service: Service) -> None:
    key = new_key(account)
    assert get(account, f"Bearer {key.key}").status_code == 200
    service.stop("api")
    try:
        assert last_use(account, key) is not None
    finally:
        service.start("api")
