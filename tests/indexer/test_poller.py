"""Where a worker is silent, the clock's process does its work, whatever became of the queue."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import sqlalchemy as sa
from redis import Redis

from indexer import poller, supervision
from indexer.poller import Poller
from infra import activity, db, queue
from infra.settings import Settings
from tests.indexer.conftest import Pipeline
from tests.waiting import wait_until


@pytest.fixture
def settings(pipeline: Pipeline) -> Settings:
    """With a queue of its own: what is broken here, no other test's worker takes from."""
    return msgspec.structs.replace(
        pipeline.database.settings, redis_url=pipeline.database.settings.redis_url.removesuffix("/0") + "/9"
    )


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(settings.redis_url) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture
def subject(settings: Settings) -> Poller:
    return Poller(settings)


@contextmanager
def worker(settings: Settings, lane: str) -> Iterator[None]:
    """A session that asks the database something all the time, under the name of a lane's worker."""
    engine, heard, ended = db.engine(settings, name=lane), threading.Event(), threading.Event()

    def ask() -> None:
        with engine.connect() as connection:
            while not ended.wait(0.05):
                connection.execute(sa.text("SELECT 1"))
                heard.set()

    thread = threading.Thread(target=ask)
    thread.start()
    assert heard.wait(30)
    try:
        yield
    finally:
        ended.set()
        thread.join()
        engine.dispose()


def lanes(pipeline: Pipeline) -> set[str]:
    """Those with changes that wait."""
    return {lane for (lane,) in pipeline.run("SELECT lane FROM outbox")}


def change_in_each_lane(pipeline: Pipeline) -> set[str]:
    insert = "INSERT INTO consumers (environment_id) VALUES (:e) RETURNING id"
    made = set()
    for lane in (queue.LIVE, queue.BULK):
        with pipeline.database.engine.begin() as connection:
            connection.execute(sa.text("SELECT set_config('consumers.lane', :lane, true)"), {"lane": lane})
            made.add(connection.execute(sa.text(insert), {"e": pipeline.environment}).scalar_one())
    assert lanes(pipeline) == {queue.LIVE, queue.BULK}
    return made


def test_both_lanes_are_drained_where_no_worker_is(pipeline: Pipeline, subject: Poller) -> None:
    made = change_in_each_lane(pipeline)
    assert not subject.poll()
    assert pipeline.visible() == made
    assert pipeline.waiting() == 0


@pytest.mark.parametrize("lane", [queue.LIVE, queue.BULK])
def test_lane_is_left_to_its_worker_while_that_is_heard(
    pipeline: Pipeline, settings: Settings, subject: Poller, lane: str
) -> None:
    change_in_each_lane(pipeline)
    with worker(settings, lane):
        for _ in range(3):
            assert not subject.poll()
        assert lanes(pipeline) == {lane}
    wait_until(lambda: not subject.poll() and not pipeline.waiting(), what="the poller to take the lane over")


def test_worker_that_is_connected_and_asks_nothing_is_silent(
    pipeline: Pipeline, settings: Settings, subject: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "SILENT_SECONDS", 0.2)
    engine = db.engine(settings, name=queue.LIVE)
    change_in_each_lane(pipeline)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        wait_until(lambda: not subject.poll() and not pipeline.waiting(), what="the poller to take the lane over")
        assert (activity.silence(connection, queue.LIVE) or 0) < 0.2, "it asked just now"
    engine.dispose()


def test_worker_of_another_database_is_not_taken_for_this_ones(
    pipeline: Pipeline, settings: Settings, subject: Poller
) -> None:
    url = sa.make_url(settings.database_url).set(database="postgres").render_as_string(hide_password=False)
    change_in_each_lane(pipeline)
    with worker(msgspec.structs.replace(settings, database_url=url), queue.LIVE):
        subject.poll()
        assert pipeline.waiting() == 0


def test_poll_raises_nothing_while_the_database_is_away(settings: Settings) -> None:
    nobody = msgspec.structs.replace(settings, database_url="postgresql://nobody@127.0.0.1:9/none")
    assert not Poller(nobody).poll()


def test_drain_goes_on_while_redis_is_away(pipeline: Pipeline, settings: Settings) -> None:
    made = change_in_each_lane(pipeline)
    assert not Poller(msgspec.structs.replace(settings, redis_url="redis://127.0.0.1:9")).poll()
    assert pipeline.visible() == made


def broken_queue(redis: Redis) -> None:
    redis.set(queue.LIVE, "no list")
    redis.hset("unacked_index", "no", "zset")
    redis.rpush(queue.MARK, "no string")
    redis.rpush(queue.BULK, "a message")
    redis.set("other", "not ours")


def test_keys_that_hold_something_else_are_removed_where_a_worker_is_silent(
    redis: Redis, settings: Settings, subject: Poller
) -> None:
    broken_queue(redis)
    with worker(settings, queue.LIVE):
        subject.poll()  # the other lane is silent
    assert set(redis.keys()) == {b"bulk", b"other"}
    assert redis.lrange(queue.BULK, 0, -1) == [b"a message"]


def test_queue_is_left_alone_while_all_workers_are_heard(redis: Redis, settings: Settings, subject: Poller) -> None:
    broken_queue(redis)
    with worker(settings, queue.LIVE), worker(settings, queue.BULK):
        subject.poll()
        assert len(redis.keys()) == 5
    wait_until(lambda: subject.poll() or len(redis.keys()) == 2, what="the queue to be healed")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("waits", "messages_at", "stuck_at"),
    [
        pytest.param(True, [], 31, id="messages wait and none is received"),
        pytest.param(True, [20], 51, id="none is received any more"),
        pytest.param(True, [20, 40, 60, 80], None, id="it is busy"),
        pytest.param(False, [], None, id="there are none"),
    ],
)
def test_worker_is_stuck_when_it_gets_nothing_though_something_waits(
    waits: bool,  # noqa: FBT001 (a case)
    messages_at: list[int],
    stuck_at: int | None,
) -> None:
    clock = Clock()
    watch = supervision.Watch(lambda: waits, clock)
    for second in range(100):
        clock.now = 1000.0 + second
        if second in messages_at:
            watch.received(sender="a signal's")
        if watch.is_stuck():
            assert second == stuck_at
            return
    assert stuck_at is None


def test_worker_has_as_long_for_the_first_message_after_a_pause(redis: Redis) -> None:
    clock = Clock()
    watch = supervision.Watch(lambda: supervision.waiting(redis, [queue.LIVE, queue.BULK]), clock)
    clock.now += 10 * supervision.STUCK_SECONDS
    assert not watch.is_stuck()
    redis.rpush(queue.BULK, "a message")
    clock.now += supervision.STUCK_SECONDS
    assert not watch.is_stuck()
    clock.now += 1
    assert watch.is_stuck()
    redis.delete(queue.BULK)
    assert not watch.is_stuck()


def test_broker_that_is_away_or_broken_has_no_messages(redis: Redis) -> None:
    redis.set(queue.LIVE, "no list")
    assert not supervision.waiting(redis, [queue.LIVE])
    assert not supervision.waiting(Redis.from_url("redis://127.0.0.1:9"), [queue.LIVE])
