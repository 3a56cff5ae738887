"""Servers that are killed, frozen, emptied or away: writes succeed, nothing is lost, nothing old comes back."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import redis
import sqlalchemy as sa

from infra import queue
from infra.index import naming
from infra.local.server import Server
from infra.local.servers import LocalServers
from tests.guarantees.conftest import crash, start
from tests.guarantees.index_comparison import assert_agreement_soon
from tests.service import Account, Service, new_account
from tests.waiting import wait_until

BACKLOG = 20_000


class Shop(NamedTuple):
    """A client of the service, and the servers below it."""

    service: Service
    servers: LocalServers
    account: Account

    def create(self, name: str, prefer: str = "") -> Any:
        response = self.account.live.post("/consumers", json={"fullName": name}, headers={"Prefer": prefer})
        assert response.status_code == 201, response.text
        return response

    def found(self, name: str) -> bool:
        response = self.account.live.get("/consumers", params={"search": name})
        return response.status_code == 200 and [row["fullName"] for row in response.json()["data"]] == [name]

    def wait_for(self, name: str) -> None:
        wait_until(lambda: self.found(name), what=f"{name} in the search")

    def drain_backlog(self) -> None:
        """Leave the drain in the middle of a lot of work."""
        insert = "INSERT INTO consumers (environment_id, full_name) SELECT :e, 'No ' || n FROM generate_series(1, :n) n"
        with self.account.database.engine.begin() as connection:
            connection.execute(sa.text(insert), {"e": self.account.live_environment, "n": BACKLOG})
        waiting = wait_until(lambda: 0 < self.account.database.waiting(self.account.live_environment) < BACKLOG)
        assert waiting


@pytest.fixture
def shop(own_servers: LocalServers, own_service: Service) -> Iterator[Shop]:
    for name in ("worker", "background"):
        # Without its broker a worker may end, or be past help: whoever runs the service starts it again.
        if not own_service.running(name):
            own_service.stop(name)
            own_service.start(name)
    with new_account(own_service) as account:
        yield Shop(own_service, own_servers, account)


@pytest.fixture
def broker(shop: Shop) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(shop.service.database.settings.redis_url) as client:
        yield client


def test_opensearch_killed_in_the_middle_of_a_drain_holds_up_no_write_and_loses_none(shop: Shop) -> None:
    shop.drain_backlog()
    shop.servers.opensearch.kill()
    responses = [shop.create(f"Meanwhile {number}") for number in range(20)]
    changed = responses[0].json()["id"]
    shop.account.live.put(f"/consumers/{changed}", json={"fullName": "Changed"}).raise_for_status()
    shop.account.live.delete(f"/consumers/{responses[1].json()['id']}").raise_for_status()
    start(shop.servers.opensearch)
    assert_agreement_soon(shop.account.database)
    assert shop.found("Changed")


def test_postgresql_killed_in_the_middle_of_a_drain_loses_nothing(shop: Shop) -> None:
    shop.drain_backlog()
    crash(shop.servers.postgres)
    wait_until(lambda: shop.account.live.get("/consumers").status_code == 200, what="the API")
    shop.create("After the crash")
    assert_agreement_soon(shop.account.database)


def test_deleted_consumer_stays_deleted_when_an_older_write_arrives_after_a_restart_of_opensearch(shop: Shop) -> None:
    consumer = shop.create("Gone").json()["id"]
    shop.account.settled()
    index = naming.index_name(shop.account.database.settings.index_prefix, 1)
    search = shop.account.database.search
    old = search.get(index=index, id=consumer)
    shop.account.live.delete(f"/consumers/{consumer}").raise_for_status()
    shop.account.settled()
    search.indices.flush(index=index)  # or replaying its log it would remember even the version of a delete
    crash(shop.servers.opensearch)
    late = {"version": old["_version"], "version_type": "external_gte", "refresh": "true", "ignore": 409}
    wait_until(search.ping, what="OpenSearch")
    assert search.index(index=index, id=consumer, body=old["_source"], params=late)["status"] == 409
    assert_agreement_soon(shop.account.database)


def test_frozen_opensearch_holds_up_no_write_and_no_answer_claims_to_be_current(shop: Shop) -> None:
    shop.create("Before")
    shop.account.settled()
    os.killpg(shop.servers.opensearch.pid, signal.SIGSTOP)
    try:
        written = shop.create("Frozen", prefer="wait=1")
        assert written.headers["Index-State"] == "pending"
        token = {"Consistency-Token": written.headers["Consistency-Token"]}
        read = shop.account.live.get("/consumers", headers=token)
        assert read.status_code == 503 or read.headers["Index-Stale"] == "true"
    finally:
        os.killpg(shop.servers.opensearch.pid, signal.SIGCONT)
    shop.wait_for("Frozen")
    assert_agreement_soon(shop.account.database)


class Fault(NamedTuple):
    begin: Callable[[redis.Redis, Server], object]
    end: Callable[[redis.Redis, Server], object] = lambda *_: None


def replace(key: str, wrong: str) -> Fault:
    """Something else than what is kept under the key."""

    def begin(broker: redis.Redis, _: Server) -> None:
        with broker.pipeline() as pipeline:
            pipeline.delete(key)
            if wrong == "string":
                pipeline.set(key, "wrong")
            else:
                pipeline.hset(key, "wrong", "wrong")
            pipeline.execute()

    return Fault(begin)


def test_index_is_verified_and_mended_though_redis_is_away(shop: Shop) -> None:
    consumer = shop.create("Tampered with").json()["id"]
    shop.account.settled()
    index = naming.index_name(shop.account.database.settings.index_prefix, 1)
    everything = {"environment": f"{shop.account.name}:live"}

    def tamper() -> None:
        shop.account.database.search.delete(index=index, id=consumer, params={"refresh": "true"})

    def done(kind: str, told: str, **wanted: Any) -> Any:
        asked = shop.account.live.post(f"/ops/index/{kind}", json=wanted)
        number = asked.raise_for_status().json()["id"]

        def run() -> Any:
            runs = shop.account.live.get(f"/ops/index/{told}").raise_for_status().json()["runs"]
            return next((each for each in runs if each["id"] == number and each["finishedAt"]), None)

        return wait_until(run, 60, f"the run to {kind}")

    shop.servers.valkey.stop()
    try:
        tamper()
        assert done("repair", "verify", **everything)["mended"] == 1
        shop.wait_for("Tampered with")
        shop.account.settled()
        tamper()
        assert done("reindex", "reindex", ids=[consumer])["compared"] == 1
        shop.wait_for("Tampered with")
        shop.account.settled()
        found = done("verify", "verify", **everything)
    finally:
        shop.servers.valkey.start()
    assert (found["state"], found["causes"]) == ("done", {})


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
    "wrong queue": replace(queue.LIVE, "string"),
    "wrong mark": replace(queue.MARK, "hash"),
    "wrong record of what is at work": replace("unacked", "string"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_write_is_searchable_whatever_is_wrong_with_redis(shop: Shop, broker: redis.Redis, fault: Fault) -> None:
    shop.create("Before")
    fault.begin(broker, shop.servers.valkey)
    try:
        shop.create("While it lasts")
        shop.wait_for("While it lasts")
    finally:
        fault.end(broker, shop.servers.valkey)
    shop.create("After it")
    shop.wait_for("After it")
    assert_agreement_soon(shop.account.database)
