"""Servers killed, frozen, flushed or away: writes succeed, no change is lost, no old state returns."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import redis
import sqlalchemy as sa

from infra import queue
from infra.index import naming
from infra.local.server import Server
from infra.local.servers import LocalServers
from tests.guarantees.conftest import crash, start
from tests.guarantees.index_comparison import assert_index_soon_equals_database
from tests.service import Account, Service, new_account
from tests.waiting import wait_until

BACKLOG = 20_000
ANSWERS = 6
"""Answers to the same question, so that both processes of the API are asked."""
UP, DOWN = "ok", "unavailable"
READY = (200, UP, UP, UP)


class Deployment(NamedTuple):
    """The service with servers and an account."""

    service: Service
    servers: LocalServers
    account: Account

    def create(self, name: str, prefer: str = "") -> Any:
        response = self.account.live.post("/consumers", json={"fullName": name}, headers={"Prefer": prefer})
        assert response.status_code == 201, response.text
        return response

    def readiness(self, purpose: str = "writes") -> tuple[int, str, str, str]:
        """Return the status of the answer, and the states of database, search and queue."""
        response = httpx.get(f"{self.service.url}/health/ready", params={"for": purpose})
        body = response.json()
        return response.status_code, body["database"], body["search"], body["queue"]

    def wait_for_readiness(self, *expected: tuple[int, str, str, str]) -> None:
        """Wait until both processes of the API report the state for writes, and the state for reads."""
        purposes = ("writes", "reads")

        def is_reported() -> bool:
            return all(
                self.readiness(purpose) == state
                for purpose, state in zip(purposes, expected, strict=True)
                for _ in range(ANSWERS)
            )

        wait_until(is_reported, 60, f"the readiness {expected}")

    def is_found(self, name: str) -> bool:
        response = self.account.live.get("/consumers", params={"search": name})
        return response.status_code == 200 and [row["fullName"] for row in response.json()["data"]] == [name]

    def wait_for(self, name: str) -> None:
        wait_until(lambda: self.is_found(name), what=f"{name} in the search")

    def drain_backlog(self) -> None:
        """Insert many consumers, and return while the drain is busy."""
        insert = "INSERT INTO consumers (environment_id, full_name) SELECT :e, 'No ' || n FROM generate_series(1, :n) n"
        with self.account.database.engine.begin() as connection:
            connection.execute(sa.text(insert), {"e": self.account.live_environment, "n": BACKLOG})
        waiting = wait_until(lambda: 0 < self.account.database.waiting(self.account.live_environment) < BACKLOG)
        assert waiting


@pytest.fixture
def deployment(own_servers: LocalServers, own_service: Service) -> Iterator[Deployment]:
    for name in ("worker", "background"):
        # A worker may end without its broker; in production a supervisor restarts it.
        if not own_service.running(name):
            own_service.stop(name)
            own_service.start(name)
    with new_account(own_service) as account:
        yield Deployment(own_service, own_servers, account)


@pytest.fixture
def broker(deployment: Deployment) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(deployment.service.database.settings.redis_url) as client:
        yield client


def test_late_write_after_a_restart_cannot_revive_consumer(deployment: Deployment) -> None:
    consumer = deployment.create("Gone").json()["id"]
    deployment.account.settled()
    index = naming.index_name(deployment.account.database.settings.index_prefix, 1)
    search = deployment.account.database.search
    routing = naming.routing(deployment.account.live_environment)
    old = search.get(index=index, id=consumer, params={"routing": routing})
    deployment.account.live.delete(f"/consumers/{consumer}").raise_for_status()
    deployment.account.settled()
    search.indices.flush(index=index)  # so that OpenSearch cannot replay the version of the delete from its log
    crash(deployment.servers.opensearch)
    late = {
        "version": old["_version"],
        "version_type": "external_gte",
        "refresh": "true",
        "ignore": 409,
        "routing": routing,
    }
    wait_until(search.ping, what="OpenSearch")
    assert search.index(index=index, id=consumer, body=old["_source"], params=late)["status"] == 409
    assert_index_soon_equals_database(deployment.account.database)


def threads_in(pid: int) -> set[str]:
    """Return the states of a process's threads; `T` is stopped."""
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")}


def test_frozen_opensearch_blocks_no_write_and_reads_are_stale(deployment: Deployment) -> None:
    deployment.create("Before")
    deployment.account.settled()
    opensearch = deployment.servers.opensearch.pid
    os.killpg(opensearch, signal.SIGSTOP)
    try:
        # On a busy machine, threads go on until the signal is delivered.
        wait_until(lambda: threads_in(opensearch) <= {"T"}, what="the end of all threads' work")
        written = deployment.create("Frozen", prefer="wait=1")
        assert written.headers["Index-State"] == "pending"
        token = {"Consistency-Token": written.headers["Consistency-Token"]}
        read = deployment.account.live.get("/consumers", headers=token)
        assert read.status_code == 503 or read.headers["Index-Stale"] == "true"
        deployment.wait_for_readiness((200, UP, DOWN, UP), (503, UP, DOWN, UP))
        state = deployment.account.operator.get(f"/ops/consumers/{written.json()['id']}/index-state").json()
        assert (state["search"], state["isSearchable"]) == ("unavailable", None)
        assert state["change"]["version"] == state["databaseVersion"]
    finally:
        os.killpg(opensearch, signal.SIGCONT)
    deployment.wait_for("Frozen")
    deployment.wait_for_readiness(READY, READY)
    assert_index_soon_equals_database(deployment.account.database)


def test_frozen_postgresql_is_noticed_at_once_and_over(deployment: Deployment) -> None:
    postmaster = deployment.servers.postgres.pid
    os.kill(postmaster, signal.SIGSTOP)  # first, so that it starts no further process
    sessions = subprocess.run(["pgrep", "-P", str(postmaster)], stdout=subprocess.PIPE, check=True).stdout.split()
    frozen = [*map(int, sessions), postmaster]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        deployment.wait_for_readiness((503, DOWN, UP, UP), (503, DOWN, UP, UP))
        assert httpx.get(f"{deployment.service.url}/health/live").status_code == 200
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    deployment.wait_for_readiness(READY, READY)


class Fault(NamedTuple):
    begin: Callable[[redis.Redis, Server], object]
    end: Callable[[redis.Redis, Server], object] = lambda *_: None


def wrong_type(key: str, wrong: str) -> Fault:
    """A value of the wrong type under a key."""

    def begin(broker: redis.Redis, _: Server) -> None:
        with broker.pipeline() as pipeline:
            pipeline.delete(key)
            if wrong == "string":
                pipeline.set(key, "wrong")
            else:
                pipeline.hset(key, "wrong", "wrong")
            pipeline.execute()

    return Fault(begin)


def test_verify_and_repair_work_while_redis_is_away(deployment: Deployment) -> None:
    consumer = deployment.create("Tampered with").json()["id"]
    deployment.account.settled()
    index = naming.index_name(deployment.account.database.settings.index_prefix, 1)
    everything = {"environment": f"{deployment.account.name}:live"}
    routing = naming.routing(deployment.account.live_environment)

    def tamper() -> None:
        params: dict[str, Any] = {"routing": routing, "refresh": "true"}
        deployment.account.database.search.delete(index=index, id=consumer, params=params)

    def complete_run(kind: str, listed_at: str, **parameters: Any) -> Any:
        accepted = deployment.account.operator.post(f"/ops/index/{kind}", json=parameters)
        number = accepted.raise_for_status().json()["id"]

        def find() -> Any:
            runs = deployment.account.operator.get(f"/ops/index/{listed_at}").raise_for_status().json()["runs"]
            return next((each for each in runs if each["id"] == number and each["finishedAt"]), None)

        return wait_until(find, 60, f"the run to {kind}")

    deployment.servers.valkey.stop()
    try:
        tamper()
        assert complete_run("repair", "verify", **everything)["mended"] == 1
        deployment.wait_for("Tampered with")
        deployment.account.settled()
        tamper()
        assert complete_run("reindex", "reindex", ids=[consumer])["compared"] == 1
        deployment.wait_for_readiness((200, UP, UP, DOWN), (200, UP, UP, DOWN))
        deployment.wait_for("Tampered with")
        deployment.account.settled()
        run_ = complete_run("verify", "verify", **everything)
    finally:
        deployment.servers.valkey.start()
    assert (run_["state"], run_["causes"]) == ("done", {})


FAULTS = {
    "restarted": Fault(lambda _, server: crash(server)),
    "stopped": Fault(lambda _, server: server.stop(), lambda _, server: server.start()),
    "hanging": Fault(
        lambda broker, _: broker.client_pause(10_000), lambda _, server: wait_until(server.ready, what="Redis")
    ),
    "emptied": Fault(lambda broker, _: broker.flushall()),
    "full": Fault(
        lambda broker, _: broker.config_set("maxmemory", "1mb"), lambda broker, _: broker.config_set("maxmemory", "0")
    ),
    "wrong queue": wrong_type(queue.LIVE, "string"),
    "wrong mark": wrong_type(queue.mark(queue.DRAIN), "hash"),
    "wrong type of unacked": wrong_type("unacked", "string"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_write_is_searchable_despite_any_fault_of_redis(
    deployment: Deployment, broker: redis.Redis, fault: Fault
) -> None:
    deployment.create("Before")
    fault.begin(broker, deployment.servers.valkey)
    try:
        deployment.create("While it lasts")
        deployment.wait_for("While it lasts")
    finally:
        fault.end(broker, deployment.servers.valkey)
    deployment.create("After it")
    deployment.wait_for("After it")
    assert_index_soon_equals_database(deployment.account.database)


# Last, because every test compares all documents of the index.
def test_opensearch_killed_during_a_drain_blocks_no_write(deployment: Deployment) -> None:
    deployment.drain_backlog()
    deployment.servers.opensearch.kill()
    responses = [deployment.create(f"Meanwhile {number}") for number in range(20)]
    changed = responses[0].json()["id"]
    deployment.account.live.put(f"/consumers/{changed}", json={"fullName": "Changed"}).raise_for_status()
    deployment.account.live.delete(f"/consumers/{responses[1].json()['id']}").raise_for_status()
    start(deployment.servers.opensearch)
    assert_index_soon_equals_database(deployment.account.database)
    assert deployment.is_found("Changed")


def test_postgresql_killed_during_a_drain_loses_nothing(deployment: Deployment) -> None:
    deployment.drain_backlog()
    deployment.servers.postgres.kill()
    deployment.wait_for_readiness((503, DOWN, UP, UP), (503, DOWN, UP, UP))
    start(deployment.servers.postgres)
    wait_until(lambda: deployment.account.live.get("/consumers").status_code == 200, what="the API")
    deployment.create("After the crash")
    assert_index_soon_equals_database(deployment.account.database)
