"""A cluster of three OpenSearch nodes: after a node is killed, no change is lost, and requests soon succeed."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import msgspec
import pytest
import sqlalchemy as sa
from opensearchpy.exceptions import ConnectionError as NoAnswer

from infra.index import isolation, naming
from infra.index.client import open_reader
from infra.index.transports import CONFIRMED, MEMBERS, AsyncNodes
from infra.local.servers import THROWAWAY, LocalServers
from tests.guarantees.index_comparison import assert_index_soon_equals_database
from tests.guarantees.random_client import RandomClient
from tests.guarantees.test_rebuilds import finished_rebuild, send_request
from tests.indexer.proxy import Proxy
from tests.opensearch_nodes import Node, pick_ports, started_nodes
from tests.service import Account, Service, new_account, new_database
from tests.waiting import wait_until

CLIENTS, CHANGES, ROWS = 3, 200, 20_000


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with started_nodes(tmp_path_factory.mktemp("nodes"), pick_ports(3)) as started:
        yield started


@pytest.fixture(scope="module")
def clustered_service(nodes: list[Node], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The whole service, configured with all three nodes."""
    addresses = {"OPENSEARCH_URL": ",".join(node.url for node in nodes)}
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("servers")
        servers = stack.enter_context(LocalServers(folder, THROWAWAY, environ=addresses))
        database = stack.enter_context(new_database(servers))
        running = Service(database, tmp_path_factory.mktemp("service"))
        stack.callback(running.close)
        running.start_all()
        yield running


@pytest.fixture
def clustered(clustered_service: Service) -> Iterator[Account]:
    with new_account(clustered_service) as account:
        yield account


def shards(account: Account, number: int) -> dict[str, str]:
    """Return the nodes of an index's started shards: `p` for the primary, `r` for the replica."""
    index = naming.index_name(account.database.settings.index_prefix, number)
    rows = account.database.search.cat.shards(index=index, params={"format": "json", "ignore": 404})
    return {row["prirep"]: row["node"] for row in rows if isinstance(row, dict) and row["state"] == "STARTED"}


def primary(account: Account, nodes: list[Node], number: int) -> Node:
    """Wait for a replica of an index, and return the node with the primary."""
    wait_until(lambda: len(shards(account, number)) == 2, what="a replica of the index")
    return nodes[int(shards(account, number)["p"].removeprefix("node"))]


def read_witness(account: Account) -> httpx.Response:
    return account.live.get("/consumers", params={"search": "Witness"})


def test_settings_of_nodes_that_are_cut_off_are_checked(clustered: Account) -> None:
    client = clustered.database.search
    assert isolation.problems(client) == []
    unsafe = {isolation.BLOCK: "write", isolation.CHECKS.format("leader", "timeout"): "10s"}
    client.cluster.put_settings(body={"transient": unsafe})
    try:
        problems = isolation.problems(client)
    finally:
        client.cluster.put_settings(body={"transient": dict.fromkeys(unsafe)})
    assert {problem.node for problem in problems} == {"node0", "node1", "node2"}
    texts = " ".join(problem.problem for problem in problems if problem.node == "node0")
    assert f"{isolation.BLOCK} is write" in texts
    assert "serves reads for up to 30.6 seconds, but is replaced after 2.2" in texts


def test_other_nodes_confirm_a_read_while_the_cluster_manager_does_not_answer(
    clustered: Account, nodes: list[Node]
) -> None:
    async def read() -> None:
        async with open_reader(settings) as client:
            reader: object = client.transport
            assert isinstance(reader, AsyncNodes)
            await client.search(**confirmed)
            for node in reader.all:
                node.id = "removed"
            with pytest.raises(NoAnswer, match="does not belong to the cluster"):
                await client.search(**confirmed)

    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(node.url)) for node in nodes]
        for proxy in proxies:
            proxy.refused = f"GET {MEMBERS}?".encode()
        addresses = ",".join(proxy.address for proxy in proxies)
        settings = msgspec.structs.replace(clustered.database.settings, opensearch_url=addresses)
        alias = naming.read_alias(settings.index_prefix)
        confirmed: dict[str, Any] = {"index": alias, "body": {"size": 0}, "params": {CONFIRMED: True}}
        asyncio.run(read())


def test_killed_primary_node_loses_nothing_and_stops_nothing(
    clustered: Account, clustered_service: Service, nodes: list[Node]
) -> None:
    node = primary(clustered, nodes, 1)
    audience = clustered.live.post("/audiences", json={"name": "All", "type": "STATIC"}).raise_for_status().json()
    witness = clustered.live.post("/consumers", json={"fullName": "Witness"}, headers={"Prefer": "wait=10"})
    assert witness.headers["Index-State"] == "searchable"
    clients = [
        RandomClient(clustered, f"{clustered_service.url}/api/v1", audience["id"], number) for number in range(CLIENTS)
    ]
    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(client.run, CHANGES) for client in clients]
        wait_until(lambda: sum(client.changes for client in clients) > CHANGES / 2, 120, "changes before the fault")
        node.kill()
        responses = [read_witness(clustered)]
        while not all(client.done() for client in running):
            responses.append(read_witness(clustered))
        for client in running:
            client.result()
    successful = [response for response in responses if response.is_success]
    assert successful, "reads go on"
    assert all(response.json()["data"] for response in successful), "a list lacks a row from before"
    assert {response.status_code for response in responses} <= {200, 503}
    assert_index_soon_equals_database(clustered.database, timeout=120)
    assert [missed for client in clients for missed in client.missed] == []
    with clustered.database.engine.connect() as connection:
        stored = {row.id: row.full_name for row in connection.execute(sa.text("SELECT id, full_name FROM consumers"))}
    del stored[witness.json()["id"]]
    assert stored == {name: text for client in clients for name, text in client.names.items()}
    node.start()


def test_rebuild_survives_the_killed_node_of_the_new_primary(clustered: Account, nodes: list[Node]) -> None:
    with clustered.database.engine.begin() as connection:
        insert = "INSERT INTO consumers (environment_id, full_name) SELECT :e, 'No ' || n FROM generate_series(1, :n) n"
        connection.execute(sa.text(insert), {"e": clustered.live_environment, "n": ROWS})
    wait_until(lambda: not clustered.database.waiting(clustered.live_environment), 120, "the index")
    send_request(clustered, "rebuild")
    node = primary(clustered, nodes, 2)
    node.kill()
    for number in range(CHANGES):
        clustered.live.post("/consumers", json={"fullName": f"During {number}"}).raise_for_status()
    done = wait_until(lambda: finished_rebuild(clustered), 180, "the rebuild")
    assert (done["phase"], done["error"]) == ("done", None)
    assert_index_soon_equals_database(clustered.database, timeout=120)
