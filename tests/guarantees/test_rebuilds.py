"""Rebuilds by the real processes, under kills, writes and reads: clients see no error and no missing row."""

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
from tests.guarantees.index_comparison import assert_index_soon_equals_database
from tests.guarantees.random_client import RandomClient
from tests.service import CELERY, UNLIMITED_OPERATORS, Account, Service, new_account, new_service
from tests.waiting import wait_until

CONSUMERS = int(os.environ.get("REBUILT_CONSUMERS", "20000"))
CHANGES = int(os.environ.get("REBUILT_CHANGES", "600"))
CLIENTS = 8
PATIENCE_SECONDS = 300 + CONSUMERS // 500
KILLS = 4

SEED = sa.text("""
    INSERT INTO consumers (environment_id, email, phone, full_name)
    SELECT :environment, 'seed' || n || '@example.com', '+1212555' || to_char(n % 10000, 'FM0000'), 'Seed ' || n
    FROM generate_series(1, :number) AS n""")


@pytest.fixture(scope="module")
def rebuilt_service(servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with new_service(servers, tmp_path_factory.mktemp("service"), UNLIMITED_OPERATORS) as service:
        yield service


@contextmanager
def new_seeded_account(service: Service) -> Iterator[Account]:
    """Create an account with searchable consumers."""
    with new_account(service) as account:
        with account.database.engine.begin() as connection:
            connection.execute(SEED, {"environment": account.live_environment, "number": CONSUMERS})
        wait_until(lambda: not account.database.waiting(account.live_environment), PATIENCE_SECONDS, "the seed")
        yield account


@pytest.fixture(scope="module")
def seeded(rebuilt_service: Service) -> Iterator[Account]:
    """One account for all tests, because a rebuild covers the whole database and would grow with each account."""
    with new_seeded_account(rebuilt_service) as account:
        yield account


def send_request(account: Account, request: str) -> Any:
    return account.operator.post(f"/ops/index/{request}").raise_for_status().json()


def rebuild_state(account: Account) -> Any:
    return account.operator.get("/ops/index").raise_for_status().json()["rebuild"]


def finished_rebuild(account: Account) -> Any:
    rebuild = rebuild_state(account)
    return rebuild["wanted"] is None and rebuild["phase"] in {"done", "failed", "cancelled"} and rebuild


class Reader:
    """A reader that pages through the seed consumers again and again; the seed never changes."""

    def __init__(self, account: Account) -> None:
        self.statuses: set[int] = set()
        self.counts: list[int] = []
        """Numbers of documents visible through the read alias, while the alias exists."""
        self.walks: list[tuple[int, int]] = []
        """By complete walk: number of rows, and of distinct rows."""
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


def test_rebuild_and_rollback_under_writes_and_kills_lose_nothing(seeded: Account, rebuilt_service: Service) -> None:
    """The full proof has 1,000,000 consumers: REBUILT_CONSUMERS=1000000 REBUILT_CHANGES=20000."""

    def reached(documents: int) -> bool:
        return rebuild_state(seeded)["documents"] >= documents or bool(finished_rebuild(seeded))

    audience = seeded.live.post("/audiences", json={"name": "All", "type": "STATIC"}).raise_for_status().json()
    url = f"{rebuilt_service.url}/api/v1"
    clients = [RandomClient(seeded, url, audience["id"], number) for number in range(CLIENTS)]
    with Reader(seeded) as reader, ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(client.run, CHANGES // CLIENTS) for client in clients]
        assert send_request(seeded, "rebuild")["phase"] == "requested"
        assert seeded.operator.post("/ops/index/rebuild").status_code == httpx.codes.CONFLICT
        for number in range(1, KILLS + 1):
            wait_until(partial(reached, number * CONSUMERS // (KILLS + 1)), PATIENCE_SECONDS, "progress")
            rebuilt_service.stop("background", signal.SIGKILL)
            rebuilt_service.start("background")
        done = wait_until(lambda: finished_rebuild(seeded), PATIENCE_SECONDS, "the rebuild")
        assert (done["phase"], done["state"], done["error"]) == ("done", "live", None)
        for _ in range(2):
            send_request(seeded, "rollback")
            wait_until(lambda: finished_rebuild(seeded), 120, "the rollback")
        for client in running:
            client.result()
        wait_until(lambda: reader.walks, PATIENCE_SECONDS, "a walk to the end")
    assert_index_soon_equals_database(seeded.database, PATIENCE_SECONDS)
    assert reader.statuses == {200}
    assert set(reader.walks) == {(CONSUMERS, CONSUMERS)}
    assert min(reader.counts) >= CONSUMERS
    assert [missed for client in clients for missed in client.missed] == []


def test_deleted_index_gives_503_never_an_empty_list(seeded: Account) -> None:
    with seeded.database.engine.connect() as connection:
        index = connection.execute(sa.text("SELECT index_name FROM generations WHERE state = 'live'")).scalar_one()
    with Reader(seeded) as reader:
        wait_until(lambda: reader.counts, what="a first read")
        seeded.database.search.indices.delete(index=index)
        wait_until(lambda: 503 in reader.statuses, what="the error")
        counts_before = len(reader.counts)
        created = seeded.live.post("/consumers", json={"fullName": "Meanwhile"}).raise_for_status().json()["id"]
        wait_until(lambda: len(reader.counts) > counts_before, 120, "the index")
    assert reader.statuses == {200, 503}
    assert set(reader.walks) <= {(CONSUMERS, CONSUMERS)}
    assert min(reader.counts) >= CONSUMERS
    seeded.settled()
    assert created in {row["id"] for row in seeded.live.get("/consumers").json()["data"]}
    assert_index_soon_equals_database(seeded.database)
    existing = seeded.database.search.indices.get(index=f"{seeded.database.settings.index_prefix}-*")
    read_indices = seeded.database.search.indices.get_alias(
        name=naming.read_alias(seeded.database.settings.index_prefix)
    )
    assert index not in existing
    assert len(read_indices) == 1


def test_poller_rebuilds_while_the_worker_is_away(seeded: Account, rebuilt_service: Service) -> None:
    with rebuilt_service.without("background"):
        send_request(seeded, "rebuild")
        done = wait_until(lambda: finished_rebuild(seeded), 120, "the rebuild")
    assert (done["phase"], done["state"], done["error"]) == ("done", "live", None)
    assert_index_soon_equals_database(seeded.database)


@pytest.mark.parametrize("request_", ["rebuild", "rollback", "drop"])
def test_rebuild_rollback_and_drop_are_also_tasks(seeded: Account, rebuilt_service: Service, request_: str) -> None:
    def generations() -> list[tuple[str, str]]:
        listed = seeded.operator.get("/ops/index").raise_for_status().json()["generations"]
        return [(each["indexName"], each["state"]) for each in listed]

    if request_ != "rebuild" and "kept" not in dict(generations()).values():
        send_request(seeded, "rebuild")
        wait_until(lambda: finished_rebuild(seeded), 120, "the rebuild")
    before = generations()
    command = [sys.executable, "-m", *CELERY, "call", f"indexer.{request_}"]
    environ = os.environ | rebuilt_service.database.environ
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    wait_until(lambda: generations() != before and finished_rebuild(seeded), 120, "the task")
    assert_index_soon_equals_database(seeded.database)


def test_rebuild_continues_after_opensearch_crash_and_redis_flush(
    own_servers: LocalServers, own_service: Service
) -> None:
    with new_seeded_account(own_service) as seeded:
        send_request(seeded, "rebuild")
        wait_until(lambda: rebuild_state(seeded)["documents"] >= CONSUMERS // 4, 60, "a part of the rebuild")
        crash(own_servers.opensearch)
        with redis.Redis.from_url(own_servers.valkey.url) as client:
            client.flushall()
        created = seeded.live.post("/consumers", json={"fullName": "Meanwhile"}).raise_for_status().json()["id"]
        done = wait_until(lambda: finished_rebuild(seeded), 180, "the rebuild")
        assert (done["phase"], done["state"], done["error"]) == ("done", "live", None)
        seeded.settled()
        assert created in {row["id"] for row in seeded.live.get("/consumers").json()["data"]}
        assert_index_soon_equals_database(seeded.database)
