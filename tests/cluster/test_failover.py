"""Fail-over to a standby while clients write: what was accepted is there, or every process knows that it is lost."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from infra.database import migrate
from infra.local.servers import LocalServers
from tests.cluster.commit_proxy import CommitProxy
from tests.cluster.failover_client import Accepted, FailoverClient
from tests.cluster.replicated_postgres import Pair
from tests.guarantees.index_comparison import OUTBOX, find_differences
from tests.service import Account, Service, database_at, new_account
from tests.waiting import wait_until

CLIENTS = 8
SECONDS = 60
"""From the promotion until the index equals the database."""
CUT_SHARE = 0.05
ROWS = sa.text("SELECT id, full_name FROM consumers")


class Cluster(NamedTuple):
    """The service on two PostgreSQL servers behind a proxy, with an account."""

    pair: Pair
    proxy: CommitProxy
    service: Service
    account: Account


@pytest.fixture(scope="module")
def cluster(servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        pair = Pair(tmp_path_factory.mktemp("postgresql"))
        stack.callback(pair.stop)
        proxy = stack.enter_context(CommitProxy(pair.primary.url, seed=1))
        proxy.forward_to(pair.primary.url)
        migrate.upgrade(pair.primary.url)
        database = stack.enter_context(database_at(servers, proxy.url))
        service = Service(database, tmp_path_factory.mktemp("service"))
        stack.callback(service.close)
        service.start_all()
        account = stack.enter_context(new_account(service))
        yield Cluster(pair, proxy, service, account)


class Writing:
    """Clients that write at the same time."""

    def __init__(self, cluster: Cluster, first: int) -> None:
        url, key = f"{cluster.service.url}/api/v1", cluster.account.live.headers["Authorization"]
        self.clients = [FailoverClient(url, key, first + number) for number in range(CLIENTS)]
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._running: list[Future[None]] = [self._pool.submit(client.run) for client in self.clients]

    def wait_for_writes(self, number: int) -> None:
        """Wait until each client has a number of further accepted writes."""
        goals = [len(client.accepted) + number for client in self.clients]

        def are_accepted() -> bool:
            for each in self._running:
                if each.done():
                    each.result()
            return all(len(client.accepted) >= goal for client, goal in zip(self.clients, goals, strict=True))

        wait_until(are_accepted, 60, "accepted writes")

    def stop(self) -> None:
        for client in self.clients:
            client.stop()
        self._pool.shutdown()
        for each in self._running:
            each.result()

    def close(self) -> None:
        for client in self.clients:
            client.stop()
            client.close()
        self._pool.shutdown()


def index_equals_database(cluster: Cluster) -> bool:
    database = cluster.account.database
    with database.engine.connect() as connection:
        if connection.execute(OUTBOX).all():
            return False
    return not any(find_differences(database))


def stored_names(cluster: Cluster) -> dict[str, str]:
    with cluster.account.database.engine.connect() as connection:
        return {row.id: row.full_name for row in connection.execute(ROWS)}


def assert_accepted_writes_are_stored(clients: list[FailoverClient], stored: dict[str, str]) -> None:
    lost = {
        consumer: (names, stored.get(consumer))
        for client in clients
        for consumer, names in client.possible.items()
        if stored.get(consumer) not in names
    }
    assert lost == {}


def repeat_keyed_writes(clients: list[FailoverClient]) -> list[str]:
    """Repeat the writes with a key and an unknown outcome until each succeeds; return the names."""
    names = [name for client in clients for name in client.keyed.values()]
    for client in clients:
        wait_until(lambda client=client: client.repeat_keyed() or not client.keyed, what="the keyed writes")  # type: ignore[misc]
    return names


def last_writes(client: FailoverClient) -> list[Accepted]:
    """Return the last accepted write of each consumer without a write of unknown outcome."""
    last = {write.consumer: write for write in client.accepted}
    return [write for write in last.values() if client.possible[write.consumer] == {write.name}]


def read_with_tokens(clients: list[FailoverClient]) -> tuple[int, int]:
    """Read writes with their tokens, and assert that no read misses the write silently.

    Returns the number of reads, and how many of them were not stale.
    """

    def read(client: FailoverClient, write: Accepted) -> bool:
        response = client.read(write)
        assert response.status_code == 200, response.text
        is_stale = response.headers.get("Index-Stale") == "true"
        assert is_stale or [row["id"] for row in response.json()["data"]] == [write.consumer], write
        return not is_stale

    reads = [
        (client, write) for client in clients for write in [write for write in last_writes(client) if write.name][-5:]
    ]
    with ThreadPoolExecutor(len(clients)) as pool:
        return len(reads), sum(pool.map(read, *zip(*reads, strict=True)))


def assert_lost_versions_match_nothing(clients: list[FailoverClient], stored: dict[str, str]) -> int:
    """Change each consumer with a lost write under the condition that the write is there; return how many were lost."""
    lost = [
        (client, write)
        for client in clients
        for write in last_writes(client)
        if write.etag and stored.get(write.consumer) != write.name
    ]
    for client, write in lost:
        assert client.change_if_match(write) == (412 if write.consumer in stored else 404)
    return len(lost)


def fail_over(cluster: Cluster, writing: Writing, *, is_synchronous: bool) -> None:
    """Kill the primary while the clients write, and promote the standby."""
    cluster.proxy.cut_share = CUT_SHARE
    writing.wait_for_writes(8)
    if is_synchronous:
        cluster.pair.primary.kill()
    else:
        cluster.pair.stop_replication()
        writing.wait_for_writes(4)
        cluster.pair.primary.kill()
    cluster.proxy.disconnect()
    cluster.proxy.cut_share = 0


def check_fail_over(cluster: Cluster, number: int) -> None:
    is_synchronous = number % 2 == 0
    cluster.pair.set_synchronous(is_synchronous=is_synchronous)
    writing = Writing(cluster, number * CLIENTS)
    try:
        fail_over(cluster, writing, is_synchronous=is_synchronous)
        if not is_synchronous:
            # What the clients accept from now on would mix with the lost writes.
            writing.stop()
        cluster.pair.promote()
        promoted_at = time.monotonic()
        cluster.proxy.forward_to(cluster.pair.primary.url)
        if is_synchronous:
            writing.wait_for_writes(4)
            writing.stop()
            repeated = repeat_keyed_writes(writing.clients)
        seconds = SECONDS - (time.monotonic() - promoted_at)
        wait_until(lambda: index_equals_database(cluster), seconds, "the index", interval=0.5)
        stored = stored_names(cluster)
        reads, current = read_with_tokens(writing.clients)
        if is_synchronous:
            assert current == reads, "every accepted write survives, and so does its token"
            assert all(list(stored.values()).count(name) == 1 for name in repeated)
            assert_accepted_writes_are_stored(writing.clients, stored)
        else:
            assert assert_lost_versions_match_nothing(writing.clients, stored), "nothing was lost"
    finally:
        writing.close()


@pytest.mark.parametrize("number", [0, 1], ids=["synchronous", "asynchronous"])
def test_fail_over_loses_nothing_silently(cluster: Cluster, number: int) -> None:
    check_fail_over(cluster, number)


@pytest.mark.cluster
def test_twenty_fail_overs_lose_nothing_silently(cluster: Cluster) -> None:
    for number in range(2, 22):
        check_fail_over(cluster, number)
