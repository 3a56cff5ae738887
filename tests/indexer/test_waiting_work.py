"""Beat discovers waiting work by a query, and wakes only the workers with work."""

from collections.abc import Iterator

import msgspec
import pytest
import sqlalchemy as sa
from redis import Redis

from indexer.waiting_work import WorkFinder
from infra import queue
from infra.operations.rebuild import REQUESTS
from infra.operations.verify import request_run
from tests.indexer.conftest import Pipeline


@pytest.fixture
def finder(pipeline: Pipeline) -> Iterator[WorkFinder]:
    finder = WorkFinder(pipeline.database.settings)
    yield finder
    finder.close()


def messages(pipeline: Pipeline) -> dict[str, int]:
    prefix = queue.key_prefix(pipeline.database.settings)
    with Redis.from_url(pipeline.database.settings.redis_url) as redis:
        return {name: redis.llen(prefix + name) for name in (queue.LIVE, queue.BULK, queue.REBUILD)}


def test_idle_service_sends_nothing(pipeline: Pipeline, finder: WorkFinder) -> None:
    finder.look()
    assert messages(pipeline) == {queue.LIVE: 0, queue.BULK: 0, queue.REBUILD: 0}


def test_change_by_sql_wakes_the_live_lane_once(pipeline: Pipeline, finder: WorkFinder) -> None:
    pipeline.insert_consumer()
    finder.look()
    finder.look()
    assert messages(pipeline) == {queue.LIVE: 1, queue.BULK: 0, queue.REBUILD: 0}
    pipeline.round()
    with Redis.from_url(pipeline.database.settings.redis_url) as redis:
        redis.flushdb()
    finder.look()
    assert messages(pipeline) == {queue.LIVE: 0, queue.BULK: 0, queue.REBUILD: 0}


def test_change_in_the_bulk_lane_wakes_the_bulk_lane(pipeline: Pipeline, finder: WorkFinder) -> None:
    with pipeline.database.engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL consumers.lane = 'bulk'"))
        insert = "INSERT INTO consumers (environment_id, full_name) VALUES (:e, 'A Consumer')"
        connection.execute(sa.text(insert), {"e": pipeline.environment})
    finder.look()
    assert messages(pipeline) == {queue.LIVE: 0, queue.BULK: 1, queue.REBUILD: 0}


@pytest.mark.parametrize("request_name", ["verify", "rebuild"])
def test_request_without_a_wake_up_is_discovered(pipeline: Pipeline, finder: WorkFinder, request_name: str) -> None:
    with pipeline.database.engine.begin() as connection:
        if request_name == "verify":
            request_run(connection, "verify")
        else:
            REQUESTS["rebuild"](connection, pipeline.database.settings)
    finder.look()
    assert messages(pipeline) == {queue.LIVE: 0, queue.BULK: 0, queue.REBUILD: 1}


def test_wake_ups_do_not_accumulate_without_a_worker(pipeline: Pipeline) -> None:
    settings = pipeline.database.settings
    task_queue = queue.TaskQueue(settings)
    with Redis.from_url(settings.redis_url) as redis:
        for _ in range(100):
            assert task_queue.send(queue.WATCH)
            assert task_queue.send(queue.COMPARE)
        assert messages(pipeline)[queue.REBUILD] == 2
        for _ in range(100):
            redis.delete(queue.key_prefix(settings) + queue.mark(queue.WATCH))
            assert task_queue.send(queue.WATCH)
        assert messages(pipeline)[queue.REBUILD] == queue.MAX_WAITING
    task_queue.close()


def test_wake_up_has_no_time_of_the_senders_clock(pipeline: Pipeline) -> None:
    task_queue = queue.TaskQueue(pipeline.database.settings)
    for task in queue.QUEUES:
        task_queue.send(task)
    task_queue.close()
    prefix = queue.key_prefix(pipeline.database.settings)
    with Redis.from_url(pipeline.database.settings.redis_url) as redis:
        headers = [
            msgspec.json.decode(message)["headers"]
            for name in (queue.LIVE, queue.BULK, queue.REBUILD)
            for message in redis.lrange(prefix + name, 0, -1)
        ]
    assert {header["task"] for header in headers} == set(queue.QUEUES)
    assert {(header["expires"], header["eta"]) for header in headers} == {(None, None)}
