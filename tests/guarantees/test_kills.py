"""`kill -9` of the real processes at each step, and a freeze: nothing is lost, nothing old comes back."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import sqlalchemy as sa

from infra import queue
from infra.database import activity
from infra.local.servers import LocalServers
from tests.guarantees.index_comparison import assert_agreement, assert_agreement_soon
from tests.service import CELERY, Account, Database, Service, new_account, new_database
from tests.waiting import wait_until

STEPS = ["unclaimed", "claimed", "aimed", "read", "written", "refreshed", "forgotten", "committed"]


class HaltingService(Service):
    COMMANDS = Service.COMMANDS | {
        "api": [
            "tests.guarantees.halting_service:create_app" if word.startswith("api.") else word
            for word in Service.COMMANDS["api"]
        ],
        "worker": [
            "tests.guarantees.halting_service" if word == CELERY[-1] else word for word in Service.COMMANDS["worker"]
        ],
    }


class Stage(NamedTuple):
    """The service, whose processes halt where they are asked to."""

    service: Service
    folder: Path

    def halt_at(self, step: str) -> None:
        for name in ("there", "go"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / step).touch()

    def wait_there(self) -> None:
        wait_until((self.folder / "there").exists, what="the halt")

    def go_on(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture(scope="module")
def halting_service(servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("halting")
    with new_database(servers) as database:
        service = HaltingService(database, tmp_path_factory.mktemp("service"), {"HALTING": str(folder)})
        try:
            for name in ("api", "worker", "beat"):
                service.start(name)
            yield Stage(service, folder)
        finally:
            service.close()


def is_at_work(database: Database) -> bool:
    """Whether the worker looks for changes; while it does not, another does its work."""
    with database.engine.connect() as connection:
        seconds = activity.seconds_since_query(connection, queue.LIVE)
    return seconds is not None and seconds < 1


@pytest.fixture
def stage(halting_service: Stage) -> Iterator[Stage]:
    if not halting_service.service.running("worker"):
        halting_service.service.start("worker")
    wait_until(lambda: is_at_work(halting_service.service.database), what="the worker")
    yield halting_service
    for asked in halting_service.folder.iterdir():
        asked.unlink()


class Story(NamedTuple):
    """Two consumers that are in the index: one is changed then, one deleted."""

    account: Account
    changed: str
    gone: str

    def change(self, name: str = "After") -> None:
        self.account.live.put(f"/consumers/{self.changed}", json={"fullName": name}).raise_for_status()

    def delete(self) -> None:
        self.account.live.delete(f"/consumers/{self.gone}").raise_for_status()

    def shown(self) -> list[str]:
        response = self.account.live.get("/consumers").raise_for_status()
        return [row["fullName"] for row in response.json()["data"]]

    def assert_told_soon(self, name: str = "After", timeout: float = 30) -> None:
        wait_until(lambda: self.shown() == [name], timeout, what="the change and the delete in the list")
        assert_agreement_soon(self.account.database)


@pytest.fixture
def story(stage: Stage) -> Iterator[Story]:
    with new_account(stage.service) as account:
        made = [account.live.post("/consumers", json={"fullName": "Before"}).json()["id"] for _ in range(2)]
        account.settled()
        yield Story(account, *made)


@pytest.mark.parametrize("victim", ["process", "worker"])
@pytest.mark.parametrize("step", STEPS)
def test_change_is_searchable_though_its_worker_was_killed_after_a_step(
    stage: Stage, story: Story, step: str, victim: str
) -> None:
    """Either the process that works is killed, which its worker replaces, or the whole worker, before another one."""
    stage.halt_at(step)
    story.change()
    story.delete()
    stage.wait_there()
    if victim == "process":
        [pid] = stage.service.children("worker")
        os.kill(pid, signal.SIGKILL)
    else:
        stage.service.stop("worker", signal.SIGKILL)
        stage.service.start("worker")
    story.assert_told_soon()


def test_change_is_searchable_though_its_worker_was_killed_and_there_is_no_other(stage: Stage, story: Story) -> None:
    stage.halt_at("written")
    story.change()
    story.delete()
    stage.wait_there()
    stage.service.stop("worker", signal.SIGKILL)
    story.assert_told_soon()


def test_rows_of_a_frozen_worker_go_to_another_and_its_late_write_is_harmless(stage: Stage, story: Story) -> None:
    stage.halt_at("writing")
    story.change("Old")
    stage.wait_there()
    stage.service.signal("worker", signal.SIGSTOP)
    try:
        story.change()
        story.delete()
        story.assert_told_soon(timeout=20)
        stage.go_on()
    finally:
        stage.service.signal("worker", signal.SIGCONT)
    wait_until(lambda: "drain_postponed" in stage.service.log("worker"), what="the end of the late round")
    assert story.shown() == ["After"]
    assert_agreement(story.account.database)


def test_change_is_searchable_though_the_api_was_killed_before_it_could_wake_anybody(
    stage: Stage, story: Story
) -> None:
    stage.halt_at("unwoken")
    with pytest.raises(httpx.ReadTimeout):
        story.account.live.put(f"/consumers/{story.changed}", json={"fullName": "After"}, timeout=1)
    stage.wait_there()
    stage.service.stop("api", signal.SIGKILL)
    with story.account.database.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM consumers WHERE id = :id"), {"id": story.gone})
    stage.service.start("api")
    story.assert_told_soon()
