"""Where a worker is silent, the clock's process does its work, whatever became of the queue."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import sqlalchemy as sa
from redis import Redis

from indexer import fallback
from indexer.fallback import Poller
from infra import queue
from infra.database import activity
from infra.database.engine import open_engine
from infra.settings import Settings
from tests.indexer.conftest import Pipeline
from tests.waiting import wait_until


@contextmanager
def polling(own: Settings, **replaced: str) -> Iterator[Poller]:
    subject = Poller(msgspec.structs.replace(own, **replaced))
    yield subject
    subject._engine.dispose()  # noqa: SLF001 (a process's ends with it)


@pytest.fixture
def subject(own: Settings) -> Iterator[Poller]:
    with polling(own) as subject:
        yield subject


@contextmanager
def worker(own: Settings, lane: str) -> Iterator[None]:
    """A session that asks the database something all the time, under the name of a lane's worker."""
    engine, heard, ended = open_engine(own, name=lane), threading.Event(), threading.Event()

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


def test_poller_drains_both_lanes_without_workers(pipeline: Pipeline, subject: Poller) -> None:
    made = change_in_each_lane(pipeline)
    assert not subject.poll()
    assert pipeline.visible() == made
    assert pipeline.waiting() == 0


@pytest.mark.parametrize("lane", [queue.LIVE, queue.BULK])
def test_lane_is_left_to_an_active_worker(pipeline: Pipeline, own: Settings, subject: Poller, lane: str) -> None:
    change_in_each_lane(pipeline)
    with worker(own, lane):
        for _ in range(3):
            assert not subject.poll()
        assert lanes(pipeline) == {lane}
    wait_until(lambda: not subject.poll() and not pipeline.waiting(), what="the poller to take the lane over")


def test_connected_worker_without_queries_is_silent(
    pipeline: Pipeline, own: Settings, subject: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "SILENT_SECONDS", 0.2)
    engine = open_engine(own, name=queue.LIVE)
    change_in_each_lane(pipeline)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        wait_until(lambda: not subject.poll() and not pipeline.waiting(), what="the poller to take the lane over")
        assert (activity.seconds_since_query(connection, queue.LIVE) or 0) < 0.2, "it asked just now"
    engine.dispose()


def test_worker_of_another_database_does_not_count(pipeline: Pipeline, own: Settings, subject: Poller) -> None:
    url = sa.make_url(own.database_url).set(database="postgres").render_as_string(hide_password=False)
    change_in_each_lane(pipeline)
    with worker(msgspec.structs.replace(own, database_url=url), queue.LIVE):
        subject.poll()
        assert pipeline.waiting() == 0


def test_poll_does_not_raise_while_the_database_is_away(own: Settings) -> None:
    with polling(own, database_url="postgresql://nobody@127.0.0.1:9/none") as subject:
        assert not subject.poll()


def test_poller_drains_while_redis_is_away(pipeline: Pipeline, own: Settings) -> None:
    made = change_in_each_lane(pipeline)
    with polling(own, redis_url="redis://127.0.0.1:9") as subject:
        assert not subject.poll()
    assert pipeline.visible() == made


def broken_queue(queue_of_its_own: Redis) -> None:
    queue_of_its_own.set(queue.LIVE, "no list")
    queue_of_its_own.hset("unacked_index", "no", "zset")
    queue_of_its_own.rpush(queue.MARK, "no string")
    queue_of_its_own.rpush(queue.BULK, "a message")
    queue_of_its_own.set("other", "not ours")


def test_keys_of_wrong_type_are_removed_if_a_worker_is_silent(
    queue_of_its_own: Redis, own: Settings, subject: Poller
) -> None:
    broken_queue(queue_of_its_own)
    with worker(own, queue.LIVE):
        subject.poll()  # the other lane is silent
    assert set(queue_of_its_own.keys()) == {b"bulk", b"other"}
    assert queue_of_its_own.lrange(queue.BULK, 0, -1) == [b"a message"]


def test_queue_is_not_repaired_while_all_workers_are_active(
    queue_of_its_own: Redis, own: Settings, subject: Poller
) -> None:
    broken_queue(queue_of_its_own)
    with worker(own, queue.LIVE), worker(own, queue.BULK):
        subject.poll()
        assert len(queue_of_its_own.keys()) == 5
    wait_until(lambda: subject.poll() or len(queue_of_its_own.keys()) == 2, what="the queue to be healed")
