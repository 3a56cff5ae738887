"""A worker follows the lane `live`: changes are indexed without messages of Celery, however they were made."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis

from indexer.drain import follow
from indexer.drain.follow import Bell, Follower
from indexer.drain.loop import Drainer
from infra import queue
from infra.backoff import Backoff
from infra.database.engine import open_engine
from infra.queue import TaskQueue
from infra.redis_client import open_redis
from infra.settings import Settings
from tests.indexer.conftest import Pipeline
from tests.indexer.rebuild_steps import insert_consumers
from tests.indexer.server_faults import closed_index
from tests.waiting import wait_until

LONG = 60.0


@pytest.fixture
def prefix(settings: Settings) -> str:
    return queue.key_prefix(settings)


@pytest.fixture
def task_queue(settings: Settings) -> Iterator[TaskQueue]:
    task_queue = TaskQueue(settings)
    yield task_queue
    task_queue.close()


@pytest.fixture
def new_follower(pipeline: Pipeline, prefix: str) -> Iterator[Callable[..., Follower]]:
    settings = pipeline.database.settings
    engine = open_engine(settings, name="live")
    redis = open_redis(settings, seconds=5)

    def make(is_stopping: Callable[[], bool] = lambda: False, **options: Any) -> Follower:
        drainer = Drainer(engine, pipeline.writer, "live", Backoff(0.1, 0.1), **options)
        return Follower(engine, drainer, lambda: Bell(redis, prefix), is_stopping)

    yield make
    engine.dispose()
    redis.close()


@contextmanager
def following(make: Callable[..., Follower], redis: Redis, prefix: str) -> Iterator[None]:
    """Follow in a thread, from the time it listens to the bell until the end of the block."""
    stop = threading.Event()
    thread = threading.Thread(target=make(stop.is_set).follow)
    thread.start()
    try:
        wait_until(lambda: redis.pubsub_numsub(prefix + queue.BELL)[0][1], what="the follower")
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(autouse=True)
def _follow_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "FOLLOW_SECONDS", LONG)


def test_change_by_sql_needs_no_message(
    pipeline: Pipeline, new_follower: Callable[..., Follower], queue_client: Redis, prefix: str
) -> None:
    with following(new_follower, queue_client, prefix):
        consumer = pipeline.insert_consumer()
        wait_until(lambda: pipeline.visible() == {consumer}, what="the document")
        pipeline.rename(consumer, "Another Name")
        wait_until(lambda: pipeline.document(consumer)["fullName"] == "Another Name", what="the new name")


def test_late_commit_is_found_although_the_sequence_rests(
    pipeline: Pipeline,
    new_follower: Callable[..., Follower],
    queue_client: Redis,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "ACTIVE_SECONDS", 0.0)
    with following(new_follower, queue_client, prefix), pipeline.database.engine.connect() as connection:
        connection.exec_driver_sql(f"INSERT INTO consumers (environment_id) VALUES ({pipeline.environment})")
        # The transaction has taken its number, and the follower has seen it.
        other = pipeline.insert_consumer()
        wait_until(lambda: pipeline.visible() == {other}, what="a later change")
        connection.commit()
        wait_until(lambda: len(pipeline.visible()) == 2, what="the late commit")


def test_bell_replaces_the_message_while_a_worker_listens(
    pipeline: Pipeline,
    new_follower: Callable[..., Follower],
    queue_client: Redis,
    prefix: str,
    task_queue: TaskQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Only the bell can end such a pause.
    pauses = ("ACTIVE_PAUSE_SECONDS", "QUIET_PAUSE_SECONDS", "IDLE_PAUSE_SECONDS")
    for pause in pauses:
        monkeypatch.setattr(follow, pause, LONG)
    with following(new_follower, queue_client, prefix):
        consumer = pipeline.insert_consumer()
        assert task_queue.wake_drain(now=True)
        wait_until(lambda: pipeline.visible() == {consumer}, what="the document")
        assert queue_client.llen(prefix + queue.LIVE) == 0
        # The pause of the thread must not last until its end.
        for pause in pauses:
            monkeypatch.setattr(follow, pause, 0.01)
        assert task_queue.wake_drain(now=True)
    assert task_queue.wake_drain(now=True)
    assert queue_client.llen(prefix + queue.LIVE) == 1


def test_single_process_follows(new_follower: Callable[..., Follower], queue_client: Redis, prefix: str) -> None:
    with following(new_follower, queue_client, prefix):
        assert not new_follower().follow()


def test_other_messages_end_the_task(new_follower: Callable[..., Follower], queue_client: Redis, prefix: str) -> None:
    queue_client.rpush(prefix + queue.LIVE, "a message")
    assert new_follower().follow()


def test_follower_ends_while_the_index_is_away(pipeline: Pipeline, new_follower: Callable[..., Follower]) -> None:
    pipeline.insert_consumer()
    with closed_index(pipeline):
        assert not new_follower().follow()
    assert pipeline.waiting() == 1


def test_backlog_has_two_threads(pipeline: Pipeline, new_follower: Callable[..., Follower]) -> None:
    assisted = threading.Event()
    rounds = []

    def announce() -> None:
        rounds.append(threading.current_thread().name)
        if rounds[-1] == "assistant":
            assisted.set()
        elif len(rounds) > 1:
            # The backlog must not end before the second thread has begun.
            assert assisted.wait(LONG)

    engine = open_engine(pipeline.database.settings, name="live-assistant")
    assistant = Drainer(engine, pipeline.writer, "live", announce=announce)
    everyone = insert_consumers(pipeline, 6000)
    follower = new_follower(lambda: True, assistant=assistant, announce=announce)
    assert not follower.follow()
    assert pipeline.visible() == set(everyone)
    assert pipeline.waiting() == 0
    assert assisted.is_set()
    engine.dispose()
