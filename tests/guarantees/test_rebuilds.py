"""Rebuilds by the real processes, which are killed meanwhile, while clients write and read: nobody notices."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Self

import httpx
import pytest
import redis
import sqlalchemy as sa
from opensearchpy.exceptions import OpenSearchException

from infra.index import naming
from infra.local.servers import LocalServers
from tests.guarantees.conftest import crash
from tests.guarantees.index_comparison import assert_agreement_soon
from tests.guarantees.random_client import Client
from tests.service import CELERY, Account, Service, new_account, new_service
from tests.waiting import wait_until

CONSUMERS = int(os.environ.get("REBUILT_CONSUMERS", "20000"))
CHANGES = int(os.environ.get("REBUILT_CHANGES", "600"))
CLIENTS = 8
PATIENCE = 300 + CONSUMERS // 500
"""Seconds."""
KILLS = 4

SEED = sa.text("""
    INSERT INTO consumers (environment_id, email, phone, full_name)
    SELECT :environment, 'seed' || n || '@example.com', '+1212555' || to_char(n % 10000, 'FM0000'), 'Seed ' || n
    FROM generate_series(1, :number) AS n""")


@pytest.fixture(scope="module")
def rebuilt_service(servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with new_service(servers, tmp_path_factory.mktemp("service")) as service:
        yield service


@contextmanager
def new_shop(service: Service) -> Iterator[Account]:
    """An account with consumers, all of them searchable."""
    with new_account(service) as account:
        with account.database.engine.begin() as connection:
            connection.execute(SEED, {"environment": account.live_environment, "number": CONSUMERS})
        wait_until(lambda: not account.database.waiting(account.live_environment), PATIENCE, "the seed")
        yield account


@pytest.fixture(scope="module")
def shop(rebuilt_service: Service) -> Iterator[Account]:
    """One for all tests of its service: a rebuild is of the whole database, and would grow with each."""
    with new_shop(rebuilt_service) as account:
        yield account


def ask(account: Account, request: str) -> Any:
    return account.live.post(f"/ops/index/{request}").raise_for_status().json()


def state_of_rebuild(account: Account) -> Any:
    return account.live.get("/ops/index").raise_for_status().json()["rebuild"]


def ended(account: Account) -> Any:
    found = state_of_rebuild(account)
    return found["wanted"] is None and found["phase"] in {"done", "failed", "cancelled"} and found


class Reader:
    """Walks the list of the seed, again and again, and counts; the seed is never changed or deleted."""

    def __init__(self, account: Account) -> None:
        self.statuses: set[int] = set()
        self.counts: list[int] = []
        """Of the documents that the read alias shows, where there is one."""
        self.walks: list[tuple[int, int]] = []
        """Of each walk to the end: rows, and different ones."""
        self._account, self._stop = account, threading.Event()
        self._http = httpx.Client(base_url=account.live.base_url, headers=account.live.headers, timeout=30)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._http.close()

    def _run(self) -> None:
        database = self._account.database
        alias = naming.read_alias(database.settings.index_prefix)
        body = {"query": {"term": {"environmentId": str(self._account.live_environment)}}}
        walked: list[str] = []
        cursor: dict[str, str] = {}
        while not self._stop.is_set():
            response = self._http.get("/consumers", params={"first": 100, "search": "seed", **cursor})
            self.statuses.add(response.status_code)
            if response.is_success:
                page = response.json()
                walked += [row["id"] for row in page["data"]]
                cursor = {"after": page["pageInfo"]["endCursor"]}
                if not page["pageInfo"]["hasNextPage"]:
                    self.walks.append((len(walked), len(set(walked))))
                    walked, cursor = [], {}
            with suppress(OpenSearchException):
                self.counts.append(database.search.count(index=alias, body=body)["count"])


def test_rebuild_and_rollback_under_writes_and_killed_workers_lose_nothing_and_nobody_notices(
    shop: Account, rebuilt_service: Service
) -> None:
    """The whole proof is 1,000,000 consumers: REBUILT_CONSUMERS=1000000 REBUILT_CHANGES=20000."""

    def reached(documents: int) -> bool:
        return state_of_rebuild(shop)["documents"] >= documents or bool(ended(shop))

    audience = shop.live.post("/audiences", json={"name": "All", "type": "STATIC"}).raise_for_status().json()
    url = f"{rebuilt_service.url}/api/v1"
    clients = [Client(shop, url, audience["id"], number) for number in range(CLIENTS)]
    with Reader(shop) as reader, ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(client.run, CHANGES // CLIENTS) for client in clients]
        assert ask(shop, "rebuild")["phase"] == "requested"
        assert shop.live.post("/ops/index/rebuild").status_code == httpx.codes.CONFLICT
        for number in range(1, KILLS + 1):
            wait_until(partial(reached, number * CONSUMERS // (KILLS + 1)), PATIENCE, "progress")
            rebuilt_service.stop("background", signal.SIGKILL)
            rebuilt_service.start("background")
        done = wait_until(lambda: ended(shop), PATIENCE, "the rebuild")
        assert (done["phase"], done["state"], done["error"]) == ("done", "live", None)
        for _ in range(2):
            ask(shop, "rollback")
            wait_until(lambda: ended(shop), 120, "the rollback")
        for client in running:
            client.result()
        wait_until(lambda: reader.walks, PATIENCE, "a walk to the end")
    assert_agreement_soon(shop.database, PATIENCE)
    assert reader.statuses == {200}
    assert set(reader.walks) == {(CONSUMERS, CONSUMERS)}
    assert min(reader.counts) >= CONSUMERS
    assert [missed for client in clients for missed in client.missed] == []


def test_index_deleted_by_hand_is_an_error_never_an_empty_list_until_it_is_refilled(shop: Account) -> None:
    with shop.database.engine.connect() as connection:
        index = connection.execute(sa.text("SELECT index_name FROM generations WHERE state = 'live'")).scalar_one()
    with Reader(shop) as reader:
        wait_until(lambda: reader.counts, what="a first read")
        shop.database.search.indices.delete(index=index)
        wait_until(lambda: 503 in reader.statuses, what="the error")
        seen = len(reader.counts)
        made = shop.live.post("/consumers", json={"fullName": "Meanwhile"}).raise_for_status().json()["id"]
        wait_until(lambda: len(reader.counts) > seen, 120, "the index")
    assert reader.statuses == {200, 503}
    assert set(reader.walks) <= {(CONSUMERS, CONSUMERS)}
    assert min(reader.counts) >= CONSUMERS
    shop.settled()
    assert made in {row["id"] for row in shop.live.get("/consumers").json()["data"]}
    assert_agreement_soon(shop.database)
    found = shop.database.search.indices.get(index=f"{shop.database.settings.index_prefix}-*")
    read = shop.database.search.indices.get_alias(name=naming.read_alias(shop.database.settings.index_prefix))
    assert index not in found
    assert len(read) == 1


def test_rebuild_is_done_where_no_worker_is_heard(shop: Account, rebuilt_service: Service) -> None:
    with rebuilt_service.without("background"):
        ask(shop, "rebuild")
        done = wait_until(lambda: ended(shop), 120, "the rebuild")
    assert (done["phase"], done["state"], done["error"]) == ("done", "live", None)
    assert_agreement_soon(shop.database)


@pytest.mark.parametrize("request_", ["rebuild", "rollback", "drop"])
def test_what_may_be_asked_is_a_task_too(shop: Account, rebuilt_service: Service, request_: str) -> None:
    def generations() -> list[tuple[str, str]]:
        found = shop.live.get("/ops/index").raise_for_status().json()["generations"]
        return [(each["indexName"], each["state"]) for each in found]

    if request_ != "rebuild":
        ask(shop, "rebuild")
        wait_until(lambda: ended(shop), 120, "the rebuild")
    before = generations()
    command = [sys.executable, "-m", *CELERY, "call", f"indexer.{request_}"]
    environ = os.environ | rebuilt_service.database.environ
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    wait_until(lambda: generations() != before and ended(shop), 120, "what was asked")
    assert_agreement_soon(shop.database)


def test_rebuild_goes_on_after_opensearch_crashed_and_redis_forgot_everything(
    own_servers: LocalServers, own_service: Service
) -> None:
    with new_shop(own_service) as shop:
        ask(shop, "rebuild")
        wait_until(lambda: state_of_rebuild(shop)["documents"] >= CONSUMERS // 4, 60, "a part of it")
        crash(own_servers.opensearch)
        with redis.Redis.from_url(own_servers.valkey.url) as client:
            client.flushall()
        made = shop.live.post("/consumers", json={"fullName": "Meanwhile"}).raise_for_status().json()["id"]
        done = wait_until(lambda: ended(shop), 180, "the rebuild")
        assert (done["phase"], done["state"], done["error"]) == ("done", "live", None)
        shop.settled()
        assert made in {row["id"] for row in shop.live.get("/consumers").json()["data"]}
        assert_agreement_soon(shop.database)
