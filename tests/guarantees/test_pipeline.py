"""Changes reach the index even if wake-ups are lost."""

import pytest
import redis
import sqlalchemy as sa

from tests.service import Account, Service
from tests.waiting import wait_until


def search_ids(account: Account, text: str) -> list[str]:
    response = account.live.get("/consumers", params={"search": text})
    assert response.status_code == 200, response.text
    return [row["id"] for row in response.json()["data"]]


def test_created_consumer_is_found_by_name_prefix_without_accents(account: Account) -> None:
    created = account.live.post("/consumers", json={"fullName": "Zoë Ødegård-Núñez"}).json()
    wait_until(lambda: search_ids(account, "odeg") == [created["id"]], what="the consumer in the search")
    assert search_ids(account, "nune zoe") == [created["id"]]


def test_change_is_indexed_after_its_wake_up_was_flushed(account: Account, service: Service) -> None:
    service.stop("worker")
    try:
        created = account.live.post("/consumers", json={"fullName": "Flushed Away"}).json()
        with redis.Redis.from_url(service.database.settings.redis_url) as queue:
            queue.flushall()
    finally:
        service.start("worker")
    wait_until(lambda: search_ids(account, "flushed") == [created["id"]], what="the consumer in the search")


def test_running_worker_continues_after_redis_was_flushed(account: Account, service: Service) -> None:
    with redis.Redis.from_url(service.database.settings.redis_url) as queue:
        queue.flushall()
    created = account.live.post("/consumers", json={"fullName": "After Flush"}).json()
    wait_until(lambda: search_ids(account, "after flush") == [created["id"]], what="the consumer in the search")


@pytest.mark.parametrize("statement", ["INSERT", "UPDATE", "DELETE"])
def test_change_made_by_hand_in_sql_is_indexed(account: Account, statement: str) -> None:

    created = account.live.post("/consumers", json={"fullName": "Before Hand"}).json()
    wait_until(lambda: search_ids(account, "before") == [created["id"]], what="the consumer in the search")
    sql, text, expected = {
        "INSERT": ("INSERT INTO consumers (environment_id, full_name) VALUES (:e, 'By Hand')", "by hand", 1),
        "UPDATE": ("UPDATE consumers SET full_name = 'Changed Hand' WHERE environment_id = :e", "changed", 1),
        "DELETE": ("DELETE FROM consumers WHERE environment_id = :e", "before", 0),
    }[statement]
    with account.database.engine.begin() as connection:
        connection.execute(sa.text(sql), {"e": account.live_environment})
    wait_until(lambda: len(search_ids(account, text)) == expected, what="the change in the search")
