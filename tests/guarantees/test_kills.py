"""`kill -9` of the real processes at each step, and a frozen worker: no change is lost, no old state returns."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import sqlalchemy as sa

from infra.local.servers import LocalServers
from tests.guarantees.index_comparison import assert_index_equals_database, assert_index_soon_equals_database
from tests.service import CELERY, Account, Service, new_account, new_database
from tests.waiting import wait_until

STEPS = ["unclaimed", "claimed", "aimed", "read", "written", "refreshed", "forgotten", "committed"]


class HaltingService(Service):
    COMMANDS = Service.COMMANDS | {
        "api": ["tests.guarantees.halting_service"],
        "worker": [
            "tests.guarantees.halting_service" if word == CELERY[-1] else word for word in Service.COMMANDS["worker"]
        ],
    }


class HaltControl(NamedTuple):
    """The service, with control over the halts of its processes."""

    service: Service
    folder: Path

    def request_halt(self, step: str) -> None:
        for name in ("there", "go"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / step).touch()

    def wait_until_halted(self) -> None:
        wait_until((self.folder / "there").exists, what="the halt")

    def resume(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture(scope="module")
def halting_service(servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HaltControl]:
    folder = tmp_path_factory.mktemp("halting")
    with new_database(servers) as database:
        service = HaltingService(database, tmp_path_factory.mktemp("service"), {"HALTING": str(folder)})
        try:
            for name in ("api", "worker", "beat"):
                service.start(name)
            yield HaltControl(service, folder)
        finally:
            service.close()


@pytest.fixture
def control(halting_service: HaltControl) -> Iterator[HaltControl]:
    if not halting_service.service.running("worker"):
        halting_service.service.start("worker")
    halting_service.service.wait_for_worker()
    yield halting_service
    for file in halting_service.folder.iterdir():
        file.unlink()


class TwoConsumers(NamedTuple):
    """Two indexed consumers: the first to change, the second to delete."""

    account: Account
    changed: str
    deleted: str

    def change(self, name: str = "After") -> None:
        self.account.live.put(f"/consumers/{self.changed}", json={"fullName": name}).raise_for_status()

    def delete(self) -> None:
        self.account.live.delete(f"/consumers/{self.deleted}").raise_for_status()

    def listed_names(self) -> list[str]:
        response = self.account.live.get("/consumers").raise_for_status()
        return [row["fullName"] for row in response.json()["data"]]

    def assert_indexed_soon(self, name: str = "After", timeout: float = 30) -> None:
        wait_until(lambda: self.listed_names() == [name], timeout, what="the change and the delete in the list")
        assert_index_soon_equals_database(self.account.database)


@pytest.fixture
def consumers(control: HaltControl) -> Iterator[TwoConsumers]:
    with new_account(control.service) as account:
        ids = [account.live.post("/consumers", json={"fullName": "Before"}).json()["id"] for _ in range(2)]
        account.settled()
        yield TwoConsumers(account, *ids)


@pytest.mark.parametrize("victim", ["process", "worker"])
@pytest.mark.parametrize("step", STEPS)
def test_change_survives_a_worker_killed_after_any_step(
    control: HaltControl, consumers: TwoConsumers, step: str, victim: str
) -> None:
    """The victim is the pool process, replaced by the worker, or the whole worker, restarted by the test."""
    control.request_halt(step)
    consumers.change()
    consumers.delete()
    control.wait_until_halted()
    killed = control.service.children("worker")
    if victim == "process":
        [pid] = killed
        os.kill(pid, signal.SIGKILL)
    else:
        control.service.stop("worker", signal.SIGKILL)
        control.service.start("worker")
    consumers.assert_indexed_soon()
    # Until the worker has a new process, beat drains, and the next test would wait for a halt of the worker in vain.
    wait_until(lambda: not {*killed} & {*control.service.children("worker")}, what="the end of the killed process")


def test_change_survives_a_killed_worker_without_replacement(control: HaltControl, consumers: TwoConsumers) -> None:
    control.request_halt("written")
    consumers.change()
    consumers.delete()
    control.wait_until_halted()
    control.service.stop("worker", signal.SIGKILL)
    consumers.assert_indexed_soon()


def test_frozen_worker_is_replaced_and_its_late_write_harmless(control: HaltControl, consumers: TwoConsumers) -> None:
    control.request_halt("writing")
    consumers.change("Old")
    control.wait_until_halted()
    control.service.signal("worker", signal.SIGSTOP)
    try:
        consumers.change()
        consumers.delete()
        consumers.assert_indexed_soon(timeout=20)
        control.resume()
    finally:
        control.service.signal("worker", signal.SIGCONT)
    wait_until(lambda: "drain_postponed" in control.service.log("worker"), what="the end of the late round")
    assert consumers.listed_names() == ["After"]
    assert_index_equals_database(consumers.account.database)


def test_change_survives_an_api_killed_before_the_wake_up(control: HaltControl, consumers: TwoConsumers) -> None:
    control.request_halt("unwoken")
    with pytest.raises(httpx.ReadTimeout):
        consumers.account.live.put(f"/consumers/{consumers.changed}", json={"fullName": "After"}, timeout=1)
    control.wait_until_halted()
    control.service.stop("api", signal.SIGKILL)
    with consumers.account.database.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM consumers WHERE id = :id"), {"id": consumers.deleted})
    control.service.start("api")
    consumers.assert_indexed_soon()
