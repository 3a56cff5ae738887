"""A worker keeps working whatever another program writes to Redis."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from infra import queue
from tests.service import Account, Service
from tests.waiting import wait_until


def envelope(body: str, headers: object, **properties: object) -> bytes:
    own = {"delivery_tag": "tag", "delivery_info": {"exchange": "", "routing_key": "live"}, "body_encoding": "base64"}
    message = {"body": body, "content-type": "application/json", "content-encoding": "utf-8", "headers": headers}
    return json.dumps(message | {"properties": own | properties}).encode()


EMPTY = base64.b64encode(b"[[], {}, {}]").decode()
FOREIGN = [
    b"garbage",
    b"",
    b"\xff\xfe\x00",
    b"null",
    b"17",
    b"[]",
    b"{}",
    b'{"properties": {}}',
    b"[" * 100_000,
    envelope("not base64", {}),
    envelope(EMPTY, "no headers"),
    envelope(EMPTY, {"task": "another.program", "id": "1"}),
    envelope(EMPTY, {"task": queue.DRAIN, "id": "2", "eta": "no time", "timelimit": 5}),
    envelope(EMPTY, {"task": queue.DRAIN, "id": "3", "timelimit": 5}),
    envelope(EMPTY, {"task": [], "id": {}}),
    envelope(EMPTY, {"task": queue.DRAIN, "id": "4"}, delivery_tag=[]),
    envelope("", {"task": queue.DRAIN, "id": "5"}),
    envelope(base64.b64encode(b"garbage").decode(), {"task": queue.DRAIN, "id": "6"}),
]


@pytest.fixture
def redis(service: Service) -> Iterator[Redis]:
    with Redis.from_url(service.database.settings.redis_url) as client:
        yield client


def test_foreign_elements_of_a_queue_do_not_end_its_worker(service: Service, account: Account, redis: Redis) -> None:
    for lane, name in ((queue.LIVE, "worker"), (queue.BULK, "background"), (queue.REBUILD, "background")):
        messages = queue.key_prefix(service.database.settings) + lane
        redis.lpush(messages, *FOREIGN)
        wait_until(
            lambda messages=messages: not set(FOREIGN) & set(redis.lrange(messages, 0, -1)),  # type: ignore[misc]
            what="the worker to take the elements",
        )
        wait_until(lambda name=name: "foreign_message_dropped" in service.log(name), what="the log")  # type: ignore[misc]
    # As many changes as it takes to see that no place of the prefetch limit is lost.
    for number in range(3):
        made = account.live.post("/consumers", json={"fullName": f"Ann {number}"}, headers={"Prefer": "wait=10"})
        assert made.status_code == 201
    account.settled()
    assert service.running("worker")
    assert service.running("background")
    for name in ("worker", "background"):
        assert "Unrecoverable error" not in service.log(name)


def test_workers_do_not_listen_to_broadcasts(service: Service, account: Account, redis: Redis) -> None:
    account.live.post("/consumers", json={"fullName": "Ann"}, headers={"Prefer": "wait=10"})
    assert service.running("worker")
    # The channels of the project carry no commands.
    channels: list[Any] = redis.pubsub_channels()
    assert {name.rpartition(b":")[2].decode() for name in channels} <= {queue.BELL, queue.ROUNDS}
    assert redis.pubsub_numpat() == 0
    assert not list(redis.scan_iter("*pidbox*"))
