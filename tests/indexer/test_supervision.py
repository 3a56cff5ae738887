"""Supervision: a process running without doing work is replaced; a busy or idle process is not."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import sqlalchemy as sa
from redis import Redis

from indexer import supervision
from infra import queue
from infra.database.engine import open_engine
from infra.local import services, watch
from infra.local.process import Process
from infra.local.services import SILENT_SECONDS, STARTING_SECONDS, Indexer
from infra.operations.status import PARTS
from infra.settings import Settings
from tests.indexer.conftest import Pipeline
from tests.service import Service
from tests.waiting import wait_until

SILENT_FILE_SECONDS = 10
"""As in the probes of docs/operations.md."""


@pytest.mark.parametrize("part", ["pool process of the worker", "beat"])
def test_liveness_file_of_a_frozen_process_gets_old(service: Service, part: str) -> None:
    name = "beat" if part == "beat" else "worker"
    frozen = service.pid(name) if part == "beat" else service.children(name)[-1]
    others = {"worker", "background", "beat"} - {name}
    os.kill(frozen, signal.SIGSTOP)
    try:
        wait_until(lambda: service.silence(name) > SILENT_FILE_SECONDS, what="the file to get old")
        wait_until(lambda: all(service.silence(other) < SILENT_FILE_SECONDS / 2 for other in others), what="the others")
    finally:
        os.kill(frozen, signal.SIGCONT)
    wait_until(lambda: service.silence(name) < SILENT_FILE_SECONDS / 2, what="the process")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("waits", "messages_at", "stuck_at"),
    [
        pytest.param(True, [], 31, id="messages wait and no message is received"),
        pytest.param(True, [20], 51, id="no message is received any more"),
        pytest.param(True, [20, 40, 60, 80], None, id="busy"),
        pytest.param(False, [], None, id="no messages"),
    ],
)
def test_worker_without_messages_is_stuck_if_messages_wait(
    waits: bool,  # noqa: FBT001 (a case)
    messages_at: list[int],
    stuck_at: int | None,
) -> None:
    clock = Clock()
    watch = supervision.Watchdog(lambda: waits, clock)
    for second in range(100):
        clock.now = 1000.0 + second
        if second in messages_at:
            watch.received(sender="a signal's")
        if watch.is_stuck():
            assert second == stuck_at
            return
    assert stuck_at is None


def test_worker_has_full_time_after_an_idle_period(queue_client: Redis) -> None:
    clock = Clock()
    watch = supervision.Watchdog(lambda: supervision.has_messages(queue_client, [queue.LIVE, queue.BULK]), clock)
    clock.now += 10 * supervision.STUCK_SECONDS
    assert not watch.is_stuck()
    queue_client.rpush(queue.BULK, "a message")
    clock.now += supervision.STUCK_SECONDS
    assert not watch.is_stuck()
    clock.now += 1
    assert watch.is_stuck()
    queue_client.delete(queue.BULK)
    assert not watch.is_stuck()


def test_unavailable_broker_has_no_messages(queue_client: Redis) -> None:
    queue_client.set(queue.LIVE, "no list")
    assert not supervision.has_messages(queue_client, [queue.LIVE])
    assert not supervision.has_messages(Redis.from_url("redis://127.0.0.1:9"), [queue.LIVE])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(services, "time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def indexer(tmp_path: Path) -> Iterator[Callable[[Settings], Indexer]]:
    """A function creating an indexer process with `sleep` as command."""
    made: list[Indexer] = []

    class Sleeping(Indexer):
        def command(self) -> list[str]:
            return ["sleep", "1000"]

    def make(settings: Settings) -> Indexer:
        made.append(Sleeping("clock", (), tmp_path, settings, part="clock"))
        return made[-1]

    yield make
    for one in made:
        one.kill()
        one._engine.dispose()  # noqa: SLF001 (a process closes its engine by ending)


def stuck_after(indexer: Indexer, clock: Clock, seconds: int = 120) -> int | None:
    """Return the seconds until the indexer is reported as stuck."""
    for second in range(seconds):
        if indexer.stuck():
            return second
        clock.now += 1
    return None


def test_indexer_without_queries_is_stuck(
    pipeline: Pipeline, indexer: Callable[[Settings], Indexer], clock: Clock
) -> None:
    one = indexer(pipeline.database.settings)
    assert stuck_after(one, clock) == SILENT_SECONDS
    # After a restart the indexer has time to start.
    one.spawn()
    after = stuck_after(one, clock)
    assert after is not None
    assert after >= STARTING_SECONDS + SILENT_SECONDS


def test_indexer_with_queries_is_not_stuck(
    pipeline: Pipeline, indexer: Callable[[Settings], Indexer], clock: Clock
) -> None:
    one = indexer(pipeline.database.settings)
    assert stuck_after(one, clock, int(SILENT_SECONDS)) is None
    engine = open_engine(pipeline.database.settings, name="clock")
    with engine.connect() as connection:
        for _ in range(10):
            connection.execute(sa.text("SELECT 1"))
            assert stuck_after(one, clock, 3) is None
    engine.dispose()
    assert stuck_after(one, clock) == SILENT_SECONDS


@pytest.mark.parametrize(
    "away", [{"redis_url": "redis://127.0.0.1:9"}, {"database_url": "postgresql://nobody@127.0.0.1:9/none"}]
)
def test_indexer_is_not_stuck_while_its_servers_are_away(
    pipeline: Pipeline, indexer: Callable[[Settings], Indexer], clock: Clock, away: dict[str, str]
) -> None:
    assert stuck_after(indexer(msgspec.structs.replace(pipeline.database.settings, **away)), clock) is None


def test_every_indexing_process_is_supervised(pipeline: Pipeline, tmp_path: Path) -> None:
    started = services.services(tmp_path, pipeline.database.settings, [])
    watched = {process.name: process.part for process in started if isinstance(process, Indexer)}
    assert watched == {process.name: watched.get(process.name) for process in started if "celery" in process.command()}
    assert sorted(watched.values()) == sorted(PARTS)


class Done(Exception):  # noqa: N818 (not an error)
    pass


class Hanging(Process):
    """A process ignoring SIGTERM; the first instance is reported as stuck once SIGTERM is ignored."""

    def __init__(self, folder: Path) -> None:
        super().__init__("hanging", folder / "log")
        self.pids: list[int] = []
        self.looks = 0

    def command(self) -> list[str]:
        code = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(0, flush=True); time.sleep(1000)"
        )
        return [sys.executable, "-c", code]

    def spawn(self) -> None:
        super().spawn()
        self.pids.append(self.pid)

    def running(self) -> bool:
        self.looks += 1
        assert self.looks < 200, "stuck() is never called"
        return super().running()

    def stuck(self) -> str | None:
        if len(self.pids) > 1:
            raise Done
        return "does nothing" if self.log.read_text() else None


def test_stuck_process_is_killed_and_restarted(tmp_path: Path) -> None:
    process, messages = Hanging(tmp_path), list[str]()
    process.spawn()
    try:
        with pytest.raises(Done):
            watch.keep_running([process], messages.append)
        first, second = process.pids
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert process.running()
        assert process.pid == second
        assert messages == ["hanging does nothing; restarting it"]
    finally:
        process.kill()
