"""The fallback poller drains the lane of a silent worker, in any state of the queue."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import msgspec
import pytest
import sqlalchemy as sa
from redis import Redis

from indexer import fallback
from indexer.chores import SCHEDULE
from indexer.drain.loop import Drainer
from indexer.fallback import Poller, Substitute
from infra import queue
from infra.backoff import Backoff
from infra.cli import setup
from infra.database import activity
from infra.database.engine import open_engine
from infra.index.client import open_writer
from infra.settings import Settings
from tests.cli import consumers_command
from tests.indexer.conftest import Pipeline
from tests.indexer.proxy import Proxy
from tests.waiting import wait_until


@contextmanager
def new_poller(settings: Settings, **replaced: str) -> Iterator[Poller]:
    poller = Poller(msgspec.structs.replace(settings, **replaced))
    yield poller
    poller._engine.dispose()  # noqa: SLF001 (a process closes its engine by ending)


@pytest.fixture
def poller(settings: Settings) -> Iterator[Poller]:
    with new_poller(settings) as poller:
        yield poller


@contextmanager
def worker(settings: Settings, lane: str) -> Iterator[None]:
    """Run queries all the time in a session with the name of a lane's worker."""
    engine, queried, stop = open_engine(settings, name=lane), threading.Event(), threading.Event()

    def ask() -> None:
        with engine.connect() as connection:
            while not stop.wait(0.05):
                connection.execute(sa.text("SELECT 1"))
                queried.set()

    thread = threading.Thread(target=ask)
    thread.start()
    assert queried.wait(30)
    try:
        yield
    finally:
        stop.set()
        thread.join()
        engine.dispose()


def waiting_lanes(pipeline: Pipeline) -> set[str]:
    """Return the lanes with outbox rows."""
    return {lane for (lane,) in pipeline.run("SELECT lane FROM outbox")}


def change_in_each_lane(pipeline: Pipeline) -> set[str]:
    insert = "INSERT INTO consumers (environment_id) VALUES (:e) RETURNING id"
    ids = set()
    for lane in (queue.LIVE, queue.BULK):
        with pipeline.database.engine.begin() as connection:
            connection.execute(sa.text("SELECT set_config('consumers.lane', :lane, true)"), {"lane": lane})
            ids.add(connection.execute(sa.text(insert), {"e": pipeline.environment}).scalar_one())
    assert waiting_lanes(pipeline) == {queue.LIVE, queue.BULK}
    return ids


def test_poller_drains_both_lanes_without_workers(pipeline: Pipeline, poller: Poller) -> None:
    made = change_in_each_lane(pipeline)
    assert not poller.poll()
    assert pipeline.visible() == made
    assert pipeline.waiting() == 0


@pytest.mark.parametrize("lane", [queue.LIVE, queue.BULK])
def test_lane_is_left_to_an_active_worker(pipeline: Pipeline, settings: Settings, poller: Poller, lane: str) -> None:
    change_in_each_lane(pipeline)
    with worker(settings, lane):
        for _ in range(3):
            assert not poller.poll()
        assert waiting_lanes(pipeline) == {lane}
    wait_until(lambda: not poller.poll() and not pipeline.waiting(), what="the poller to take the lane over")


def test_connected_worker_without_queries_is_silent(
    pipeline: Pipeline, settings: Settings, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fallback.SILENT_SECONDS, queue.LIVE, 0.2)
    engine = open_engine(settings, name=queue.LIVE)
    change_in_each_lane(pipeline)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        wait_until(lambda: not poller.poll() and not pipeline.waiting(), what="the poller to take the lane over")
        assert (activity.seconds_since_query(connection, queue.LIVE) or 0) < 0.2, "the session has just run a query"
    engine.dispose()


def test_health_check_tells_a_hanging_part_from_an_absent_part(
    pipeline: Pipeline, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    consumers = consumers_command(pipeline.database, monkeypatch, capsys)
    assert consumers("alive", "live").code == 1
    with worker(settings, queue.LIVE):
        assert consumers("alive", "live").code == 0
    engine = open_engine(settings, name=queue.LIVE)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        wait_until(lambda: consumers("alive", "live", "--within", "1").code == setup.HANGING, what="the part to hang")
    engine.dispose()


def test_lane_of_a_worker_cut_off_from_the_index_is_drained(
    pipeline: Pipeline, settings: Settings, poller: Poller
) -> None:
    engine = open_engine(settings, name=queue.LIVE)
    with Proxy(settings.opensearch_url) as between:
        client = open_writer(msgspec.structs.replace(settings, opensearch_url=between.address))
        drainer = Drainer(engine, client, queue.LIVE, Backoff(0, 0), part=queue.LIVE)
        between.close()
        made = {pipeline.insert_consumer()}
        drainer.catch_up(0.1)
        drainer.catch_up(0.1)
        with pipeline.database.engine.connect() as connection:
            assert activity.seconds_since_query(connection, queue.LIVE, unless_cut_off=True) is None
            assert activity.seconds_since_query(connection, queue.LIVE) is not None, "the worker is alive"
        wait_until(lambda: not poller.poll() and not pipeline.waiting(), what="the poller to take the lane over")
        assert pipeline.visible() == made
        between.open()
        made.add(pipeline.insert_consumer())
        drainer.catch_up(5)
        assert pipeline.visible() == made
        with pipeline.database.engine.connect() as connection:
            assert activity.seconds_since_query(connection, queue.LIVE, unless_cut_off=True) is not None
        client.close()
    engine.dispose()


def test_worker_cut_off_from_the_index_locks_no_rows(pipeline: Pipeline, settings: Settings) -> None:
    with Proxy(settings.opensearch_url) as between:
        client = open_writer(msgspec.structs.replace(settings, opensearch_url=between.address))
        drainer = Drainer(pipeline.database.engine, client, queue.LIVE, Backoff(0, 0))
        between.close()
        pipeline.insert_consumer()
        drainer.catch_up(0.1)
        between.open(hanging=True)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(drainer.catch_up, 0.1)
            while not running.done():
                assert pipeline.run("SELECT seq FROM outbox FOR UPDATE SKIP LOCKED"), "the row is free for other drains"
        client.close()


def test_worker_of_another_database_does_not_count(pipeline: Pipeline, settings: Settings, poller: Poller) -> None:
    url = sa.make_url(settings.database_url).set(database="postgres").render_as_string(hide_password=False)
    change_in_each_lane(pipeline)
    with worker(msgspec.structs.replace(settings, database_url=url), queue.LIVE):
        poller.poll()
        assert pipeline.waiting() == 0


def test_poll_does_not_raise_while_the_database_is_away(settings: Settings) -> None:
    with new_poller(settings, database_url="postgresql://nobody@127.0.0.1:9/none") as poller:
        assert not poller.poll()


def test_poller_drains_while_redis_is_away(pipeline: Pipeline, settings: Settings) -> None:
    made = change_in_each_lane(pipeline)
    with new_poller(settings, redis_url="redis://127.0.0.1:9") as poller:
        assert not poller.poll()
    assert pipeline.visible() == made


def break_queue(queue_client: Redis, settings: Settings) -> None:
    prefix = queue.key_prefix(settings)
    queue_client.set(prefix + queue.LIVE, "no list")
    queue_client.hset(f"{prefix}unacked_index", "no", "zset")
    queue_client.rpush(prefix + queue.mark(queue.DRAIN), "no string")
    queue_client.rpush(prefix + queue.BULK, "a message")
    queue_client.set(queue.LIVE, "of another program")


def test_keys_of_wrong_type_are_removed_if_a_worker_is_silent(
    queue_client: Redis, settings: Settings, poller: Poller
) -> None:
    break_queue(queue_client, settings)
    with worker(settings, queue.LIVE):
        poller.poll()  # the worker of the other lane is silent
    messages = queue.key_prefix(settings) + queue.BULK
    assert set(queue_client.keys()) == {messages.encode(), b"live"}
    assert queue_client.lrange(messages, 0, -1) == [b"a message"]


def test_queue_is_not_repaired_while_all_workers_are_active(
    queue_client: Redis, settings: Settings, poller: Poller
) -> None:
    break_queue(queue_client, settings)
    with worker(settings, queue.LIVE), worker(settings, queue.BULK):
        poller.poll()
        assert len(queue_client.keys()) == 5
    wait_until(lambda: poller.poll() or len(queue_client.keys()) == 2, what="the keys to be removed")


@pytest.fixture
def substitute(settings: Settings) -> Iterator[Substitute]:
    substitute = Substitute(settings)
    yield substitute
    # A process closes all of these by ending. The threads of the pool end first, because each holds a connection.
    substitute._runner._pool.close()  # noqa: SLF001
    for engine in (substitute._engine, substitute._runner.engine):  # noqa: SLF001
        engine.dispose()
    substitute._builder.close()  # noqa: SLF001


def test_chores_are_done_while_the_worker_is_silent(
    pipeline: Pipeline, settings: Settings, substitute: Substitute
) -> None:
    """Upkeep and watch stand for all chores: the one removes a row, the other adds one."""
    pipeline.run("INSERT INTO audiences (environment_id, name, type, deleted_at) SELECT :e, 'Gone', 'STATIC', now()")

    def done() -> tuple[int, int]:
        [row] = pipeline.run(
            "SELECT (SELECT count(*) FROM audiences), (SELECT count(*) FROM verifications WHERE kind = 'watch')"
        )
        return int(row[0]), int(row[1])

    with worker(settings, queue.BULK):
        substitute.poll()
        assert done() == (1, 0)
    wait_until(lambda: substitute.poll() or done() == (0, 1), what="the chores")


def test_watch_goes_on_after_the_clock_of_the_database_went_back(pipeline: Pipeline, substitute: Substitute) -> None:
    pipeline.run("""
        INSERT INTO verifications (kind, requested_at, finished_at)
        VALUES ('watch', now() + interval '1 hour', now() + interval '1 hour')""")
    wait_until(
        lambda: substitute.poll() or pipeline.run("SELECT FROM verifications WHERE requested_at <= now()"),
        what="a round of the watch",
    )


def test_every_scheduled_chore_has_a_substitute(substitute: Substitute) -> None:
    assert substitute._timetable._chores.keys() == SCHEDULE.keys()  # noqa: SLF001
