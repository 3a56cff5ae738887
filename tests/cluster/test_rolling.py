"""The release before this one and this one side by side: an upgrade and its reversal under load lose nothing."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import httpx
import pytest

from infra.local.servers import LocalServers
from infra.settings import ROOT
from tests.balancer import Balancer
from tests.databases import empty_database
from tests.guarantees.random_client import RandomClient, wait_for_changes
from tests.service import Database, Service, database_at, new_account
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

RELEASE_BEFORE = "b850a4f"
"""Commit of the release before this one."""
CLIENTS = 6
CHANGES = 150
"""Changes between two steps of the upgrade."""
INDEXER = ("worker", "background", "beat")


@pytest.fixture
def earlier_code(tmp_path: Path) -> Path:
    """The code of an earlier release in a folder of its own."""
    command = ["git", "archive", RELEASE_BEFORE]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the history has no commit {RELEASE_BEFORE} (a shallow clone?): {archive.stderr.decode().strip()}")
    folder = tmp_path / "earlier"
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def consumers(database: Database, code: Path, *arguments: str) -> None:
    """Run a command of a release, which must succeed."""
    command = [sys.executable, "-c", "from infra.cli.main import main; main()", *arguments]
    environ = os.environ | database.environ
    done = subprocess.run(command, cwd=code, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Releases:
    """Processes of two releases on a database, with two APIs of each behind a balancer."""

    def __init__(self, database: Database, earlier_code: Path, folder: Path) -> None:
        self.database = database
        self.apis: dict[str, list[Service]] = {"earlier": [], "this": []}
        self.indexers: dict[str, Service] = {}
        for release, root in (("earlier", earlier_code), ("this", ROOT)):
            for number in range(2):
                logs = folder / f"{release}{number}"
                logs.mkdir()
                self.apis[release].append(Service(database.on_other_ports(), logs, root=root))
            self.indexers[release] = self.apis[release][0]
        self.balancer = Balancer()

    def start(self, release: str) -> None:
        """Start all processes of a release."""
        for name in INDEXER:
            self.indexers[release].start(name)
        for api in self.apis[release]:
            api.start("api")
            self.balancer.add(api.database.settings.port)

    def replace(self, release: str, by: str, clients: list[RandomClient]) -> None:
        """Replace each process of a release by a process of the other release, with writes between the steps."""
        for name in INDEXER:
            self.indexers[by].start(name)
            wait_for_changes(clients, CHANGES)
            self.indexers[release].stop(name)
            wait_for_changes(clients, CHANGES)
        for api, other in zip(self.apis[release], self.apis[by], strict=True):
            other.start("api")
            self.balancer.add(other.database.settings.port)
            wait_for_changes(clients, CHANGES)
            self.balancer.remove(port := api.database.settings.port)
            self.retire_connections(clients, port)
            api.stop("api")
            wait_for_changes(clients, CHANGES)

    def retire_connections(self, clients: list[RandomClient], port: int) -> None:
        """Let the clients open new connections, as a proxy does that takes a server out of its list."""
        for client in clients:
            client.reconnect()
        wait_until(lambda: not self.balancer.connections(port), what="the last response of the API")

    def close(self) -> None:
        for api in (*self.apis["earlier"], *self.apis["this"]):
            api.close()


@pytest.fixture
def releases(servers: LocalServers, earlier_code: Path, tmp_path: Path) -> Iterator[Releases]:
    """The earlier release, running on its own schema."""
    with ExitStack() as stack:
        url = stack.enter_context(empty_database(servers, "rolling"))
        database = stack.enter_context(database_at(servers, url, is_migrated=False))
        consumers(database, earlier_code, "migrate")
        running = Releases(database, earlier_code, tmp_path)
        stack.enter_context(running.balancer)
        stack.callback(running.close)
        running.start("earlier")
        yield running


def test_rolling_upgrade_and_back_fails_no_request(releases: Releases, earlier_code: Path) -> None:
    database = releases.database
    consumers(database, ROOT, "migrate")
    with ExitStack() as stack:
        account = stack.enter_context(new_account(releases.apis["earlier"][0]))
        audience = account.live.post("/audiences", json={"name": "All", "type": "STATIC"}).raise_for_status().json()
        url = f"{releases.balancer.url}/api/v1"
        clients = [RandomClient(account, url, audience["id"], number) for number in range(CLIENTS)]
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        running = [pool.submit(client.run) for client in clients]
        try:
            wait_for_changes(clients, CHANGES)
            releases.replace("earlier", "this", clients)
            consumers(database, ROOT, "index", "verify")
            releases.replace("this", "earlier", clients)
        finally:
            for client in clients:
                client.stop()
        for done in running:
            done.result()
        account.settled()
        consumers(database, earlier_code, "index", "verify")
    assert [client.repeated for client in clients] == [0] * CLIENTS
    assert [failed for client in clients for failed in client.failed_reads] == []
    assert [missed for client in clients for missed in client.missed] == []


def test_rebuild_after_an_upgrade_converts_every_document_under_writes(releases: Releases) -> None:
    """The rebuild gives the documents of the earlier release the meaning of this one, and search finds them by it."""
    database = releases.database
    consumers(database, ROOT, "migrate")
    with new_account(releases.apis["earlier"][0]) as account, ThreadPoolExecutor(CLIENTS) as pool:
        made = account.live.post("/consumers", json={"fullName": "Mc Donald"}).raise_for_status().json()
        audience = account.live.post("/audiences", json={"name": "All", "type": "STATIC"}).raise_for_status().json()
        url = f"{releases.balancer.url}/api/v1"
        clients = [RandomClient(account, url, audience["id"], number) for number in range(CLIENTS)]
        running = [pool.submit(client.run) for client in clients]
        try:
            wait_for_changes(clients, CHANGES)
            releases.replace("earlier", "this", clients)
            consumers(database, ROOT, "index", "rebuild", "--wait")
            wait_for_changes(clients, CHANGES)
        finally:
            for client in clients:
                client.stop()
        for done in running:
            done.result()
        consumers(database, ROOT, "index", "verify")
        api = releases.apis["this"][0].url
        found = httpx.get(f"{api}/api/v1/consumers/search?q=mcdonald", headers=account.live.headers).json()
    assert [consumer["id"] for consumer in found["data"]] == [made["id"]]
    assert [missed for client in clients for missed in client.missed] == []
