"""The clocks of API, beat and workers differ by a minute: every task is served, tokens and cursors stay valid."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from infra import queue
from infra.local.servers import LocalServers
from tests.cluster.clocks import needs_compiler, shift_library, shifted
from tests.service import PatientService, Service, new_account, new_database
from tests.waiting import wait_until

pytestmark = [pytest.mark.cluster, needs_compiler]

TASKS = (queue.UPKEEP, queue.PURGE, queue.WATCH, queue.ERASE, queue.COMPARE, queue.BUILD, queue.DRAIN_BULK)


class SkewedService(PatientService):
    """A service whose processes have different clocks, and whose workers log each task."""

    COMMANDS = PatientService.COMMANDS | {
        name: [
            argument.replace("indexer.worker", "tests.cluster.traced_worker")
            for argument in PatientService.COMMANDS[name]
        ]
        for name in ("worker", "background")
    }
    clocks: Mapping[str, int]
    library: Path

    def start(self, name: str, *, workers: int = 1) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in shifted(self.library, self.clocks[name]).items():
                patch.setenv(variable, value)
            super().start(name, workers=workers)


def served(service: Service) -> set[str]:
    """Return the tasks that the worker of the bulk lane has finished, by its log."""
    return tasks(service, "task_served", "background") & set(TASKS)


def tasks(service: Service, event: str, worker: str) -> set[str]:
    """Return the tasks of the lines with an event in a worker's log."""
    lines = [json.loads(line) for line in service.log(worker).splitlines() if f'"{event}"' in line]
    return {line["task"] for line in lines if line["event"] == event}


@contextmanager
def skewed_service(servers: LocalServers, folder: Path, ahead: int) -> Iterator[SkewedService]:
    """Run a service whose clocks differ by up to two minutes; `ahead` is 1 or -1."""
    folder.mkdir()
    with new_database(servers) as database:
        service = SkewedService(database, folder)
        service.library = shift_library(folder)
        service.clocks = {"api": 60 * ahead, "beat": -60 * ahead, "worker": 60 * ahead, "background": 30 * ahead}
        try:
            service.start_all()
            yield service
        finally:
            service.close()


def write_and_read(service: Service) -> None:
    """Write and read with tokens and cursors."""
    with new_account(service) as account:
        made = account.live.post("/consumers", json={"fullName": "Ann Lee"}, headers={"Prefer": "wait=10"})
        assert (made.status_code, made.headers["Index-State"]) == (201, "searchable")
        account.live.post("/consumers", json={"fullName": "Bo Li"}, headers={"Prefer": "wait=10"})
        token = {"Consistency-Token": made.headers["Consistency-Token"]}
        page = account.live.get("/consumers", params={"first": 1}, headers=token)
        assert "Index-Stale" not in page.headers
        after = page.json()["pageInfo"]["endCursor"]
        assert account.live.get("/consumers", params={"first": 1, "after": after}).status_code == 200
        assert account.live.delete(f"/consumers/{made.json()['id']}").status_code == 200
        account.settled()


def test_no_task_is_discarded_though_clocks_differ(servers: LocalServers, tmp_path: Path) -> None:
    with ExitStack() as stack:
        # At the same time, because the rarest task comes every 30 seconds.
        services = [
            stack.enter_context(skewed_service(servers, tmp_path / name, ahead))
            for name, ahead in (("ahead", 1), ("behind", -1))
        ]
        for service in services:
            write_and_read(service)
        for service in services:
            wait_until(lambda service=service: served(service) == set(TASKS), timeout=60, what="every task")  # type: ignore[misc]
            for name in ("worker", "background"):
                assert tasks(service, "task_revoked", name) == set()
