"""Three OpenSearch nodes, each cut off or frozen for a while, and each other process frozen: no read silently lacks its
write, and no write fails.

CUT_SECONDS sets how long; the figures of each fault are printed (`-s` or `-rP`).
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from infra.local.server import Server
from infra.local.servers import THROWAWAY, LocalServers
from tests.balancer import Balancer
from tests.cluster.cutting_proxy import CLIENTS, CuttingProxies, IsCut
from tests.cluster.token_client import TokenClient, summary
from tests.guarantees.index_comparison import assert_index_soon_equals_database
from tests.opensearch_nodes import Node, pick_ports, started_nodes
from tests.service import Account, Service, new_account, new_database
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

NODES = range(3)
SECONDS = float(os.environ.get("CUT_SECONDS", "10"))
CLIENT_THREADS = 4
HEAP = "384m"


class DoubledService(Service):
    """A service with two workers of the live lane and two beats, so that each may be frozen beside the other."""

    COMMANDS = Service.COMMANDS | {
        "second worker": [part.replace("live@", "live2@") for part in Service.COMMANDS["worker"]],
        "second beat": Service.COMMANDS["beat"],
    }


class Cluster(NamedTuple):
    nodes: list[Node]
    proxies: CuttingProxies
    service: Service
    balancer: Balancer
    valkey: Server

    @contextmanager
    def cut(self, is_cut: IsCut) -> Iterator[None]:
        self.proxies.cut(is_cut)
        try:
            yield
        finally:
            self.proxies.cut(None)

    def is_whole(self) -> bool:
        health = self.service.database.search.cluster.health(params={"request_timeout": 5})
        return bool(health["number_of_nodes"] == len(NODES) and health["status"] == "green")

    def wait_until_whole(self) -> None:
        wait_until(self.is_whole, 120, "three nodes and all copies")

    def role(self, number: int) -> str:
        """Describe a node: cluster manager or not, and its copy of the index."""
        cat, as_json = self.service.database.search.cat, {"format": "json"}
        is_manager = cat.cluster_manager(params=as_json)[0]["node"] == f"node{number}"
        copies = {row["node"]: row["prirep"] for row in cat.shards(params=as_json)}
        copy = {"p": "primary", "r": "replica"}.get(copies.get(f"node{number}", ""), "no copy")
        return f"manager, {copy}" if is_manager else copy


@contextmanager
def frozen(group: int) -> Iterator[None]:
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes behind proxies, and the service with two APIs behind a balancer, two live workers and two beats."""
    with ExitStack() as stack:
        proxies = stack.enter_context(CuttingProxies())
        transports = pick_ports(len(NODES))
        published = [proxies.add(number, transports[number]) for number in NODES]
        folder = tmp_path_factory.mktemp("nodes")
        nodes = stack.enter_context(started_nodes(folder, transports, published, heap=HEAP))
        proxies.pids |= {node.number: node.pid for node in nodes}
        urls = [node.url.replace(f":{node.port}", f":{proxies.add(node.number, node.port)}") for node in nodes]
        environ = {"OPENSEARCH_URL": ",".join(urls)}
        servers = stack.enter_context(LocalServers(tmp_path_factory.mktemp("servers"), THROWAWAY, environ=environ))
        database = stack.enter_context(new_database(servers))
        services = [
            DoubledService(each, tmp_path_factory.mktemp("service")) for each in (database, database.on_other_ports())
        ]
        for service in services:
            stack.callback(service.close)
        services[0].start_all()
        services[0].start("second worker")
        services[0].start("second beat")
        services[1].start("api")
        balancer = stack.enter_context(Balancer(*(service.database.settings.port for service in services)))
        yield Cluster(nodes, proxies, services[0], balancer, servers.valkey)


@pytest.fixture(scope="module")
def account(cluster: Cluster) -> Iterator[Account]:
    with new_account(cluster.service) as account:
        yield account


def is_from_peers(number: int) -> IsCut:
    """Whether a connection is between the node and another node."""
    return lambda source, target: source != CLIENTS and number in {source, target} and source != target


def is_to_node(number: int) -> IsCut:
    """Whether another node opened a connection to the node: its own connections still work."""
    return lambda source, target: source not in {CLIENTS, number} and target == number


def is_from_clients(number: int) -> IsCut:
    return lambda source, target: source == CLIENTS and target == number


def is_from_all(number: int) -> IsCut:
    return lambda source, target: number in {source, target} and source != target


CUTS = {"peers": is_from_peers, "clients": is_from_clients, "all": is_from_all}


@pytest.mark.parametrize("fault", [*CUTS, "frozen"])
@pytest.mark.parametrize("number", NODES)
def test_node_without_connection_loses_no_write_and_no_read(
    cluster: Cluster, account: Account, number: int, fault: str
) -> None:
    is_frozen = fault == "frozen"
    during = frozen(cluster.nodes[number].pid) if is_frozen else cluster.cut(CUTS[fault](number))
    cluster.wait_until_whole()
    role = cluster.role(number)
    clients = write_and_read(cluster, account, f"{number}{fault}", during)
    print(f"node {number} ({role}), {fault}: {summary(clients)}")  # noqa: T201 (the figures of the test)


def test_node_that_others_do_not_reach_serves_no_old_copy(cluster: Cluster, account: Account) -> None:
    cluster.wait_until_whole()
    number = next(each for each in NODES if cluster.role(each) in {"primary", "replica"})
    clients = write_and_read(cluster, account, "incoming", cluster.cut(is_to_node(number)))
    print(f"node {number} ({cluster.role(number)}), incoming: {summary(clients)}")  # noqa: T201 (the figures of the test)


@pytest.mark.parametrize("part", ["worker", "second worker", "background", "beat", "second beat", "valkey"])
def test_frozen_process_loses_no_write_and_no_read(cluster: Cluster, account: Account, part: str) -> None:
    pid = cluster.valkey.pid if part == "valkey" else cluster.service.pid(part)
    clients = write_and_read(cluster, account, part.replace(" ", ""), frozen(pid))
    print(f"{part} frozen: {summary(clients)}")  # noqa: T201 (the figures of the test)


def write_and_read(
    cluster: Cluster, account: Account, name: str, fault: AbstractContextManager[None]
) -> list[TokenClient]:
    """Let clients write and read, before, during and after a fault."""
    cluster.wait_until_whole()
    url, authorization = f"{cluster.balancer.url}/api/v1", account.live.headers["Authorization"]
    *writers, reader = clients = [
        TokenClient(url, authorization, f"{name}{thread}") for thread in range(CLIENT_THREADS)
    ]
    with ThreadPoolExecutor(CLIENT_THREADS) as pool:
        running = [pool.submit(reader.run_reads), *(pool.submit(client.run) for client in writers)]
        try:
            wait_until(lambda: all(client.reads > 5 for client in clients), what="reads before the fault")
            for client in clients:
                client.begin_fault()
            with fault:
                wait_until(lambda: all(client.seconds() > SECONDS for client in clients), SECONDS + 30, "the end")
            cluster.wait_until_whole()
        finally:
            for client in clients:
                client.stop()
        for one in running:
            one.result()
    assert [missed for client in clients for missed in client.missed] == []
    assert [failure for client in clients for failure in client.failed_writes] == []
    assert "index_lost" not in cluster.service.log("beat") + cluster.service.log("second beat")
    with account.database.engine.connect() as connection:
        lost = sa.text("SELECT index_name FROM generations WHERE lost_at IS NOT NULL OR state <> 'live'")
        assert connection.execute(lost).all() == []
    assert_index_soon_equals_database(account.database, timeout=120)
    return clients
