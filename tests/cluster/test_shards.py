"""Three nodes: rebuilds from one shard to five and back while clients write, and the loss of a node."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import msgspec
import pytest
import sqlalchemy as sa

from infra.local.servers import THROWAWAY, LocalServers
from infra.operations import rebuild
from infra.queue import BUILD, TaskQueue
from tests.guarantees.index_comparison import assert_index_soon_equals_database
from tests.guarantees.random_client import RandomClient
from tests.guarantees.test_rebuilds import finished_rebuild
from tests.guarantees.test_three_nodes import nodes, read_witness  # noqa: F401 (`nodes` is a fixture)
from tests.opensearch_nodes import Node
from tests.service import UNLIMITED_OPERATORS, Account, Service, new_account, new_service
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

CLIENTS, CHANGES, ROWS, SHARDS = 3, 120, 20_000, 5


@pytest.fixture(scope="module")
def service(nodes: list[Node], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:  # noqa: F811
    """The whole service, configured with all three nodes and a replica of each shard."""
    addresses = {"OPENSEARCH_URL": ",".join(node.url for node in nodes)}
    with ExitStack() as stack:
        servers = stack.enter_context(LocalServers(tmp_path_factory.mktemp("servers"), THROWAWAY, environ=addresses))
        environ = UNLIMITED_OPERATORS | {"INDEX_REPLICAS": "1"}
        yield stack.enter_context(new_service(servers, tmp_path_factory.mktemp("service"), environ))


@pytest.fixture(scope="module")
def account(service: Service) -> Iterator[Account]:
    with new_account(service) as account:
        insert = "INSERT INTO consumers (environment_id, full_name) SELECT :e, 'No ' || n FROM generate_series(1, :n) n"
        with account.database.engine.begin() as connection:
            connection.execute(sa.text(insert), {"e": account.live_environment, "n": ROWS})
        wait_until(lambda: not account.database.waiting(account.live_environment), 120, "the index")
        yield account


class Clients:
    """Clients that write at the same time, each to its own consumers."""

    def __init__(self, account: Account, url: str, audience: str, first: int) -> None:
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._clients = [RandomClient(account, f"{url}/api/v1", audience, first + each) for each in range(CLIENTS)]
        self._running = [self._pool.submit(client.run, CHANGES) for client in self._clients]

    @property
    def changes(self) -> int:
        return sum(client.changes for client in self._clients)

    def end(self) -> None:
        """Wait for the clients, and check that their reads with a token had each write."""
        with self._pool:
            for client in self._running:
                client.result()
        assert [missed for client in self._clients for missed in client.missed] == []

    def names(self) -> dict[str, str]:
        return {consumer: name for client in self._clients for consumer, name in client.names.items()}


def start_rebuild(account: Account, shards: int) -> None:
    settings = msgspec.structs.replace(account.database.settings, index_shards=shards)
    with account.database.engine.begin() as connection:
        rebuild.start(connection, settings)
    task_queue = TaskQueue(settings)
    task_queue.send(BUILD)
    task_queue.close()


def nodes_with_primaries(account: Account) -> list[str]:
    """Return for each primary shard of the live index the name of its node."""
    with account.database.engine.connect() as connection:
        index = connection.execute(sa.text("SELECT index_name FROM generations WHERE state = 'live'")).scalar_one()
    rows = account.database.search.cat.shards(index=index, params={"format": "json"})
    return [row["node"] for row in rows if row["prirep"] == "p" and row["state"] == "STARTED"]


@pytest.fixture(scope="module")
def audience(account: Account) -> str:
    created = account.live.post("/audiences", json={"name": "All", "type": "STATIC"}).raise_for_status()
    return str(created.json()["id"])


@pytest.mark.parametrize(("shards", "first"), [(SHARDS, 0), (1, CLIENTS), (SHARDS, 2 * CLIENTS)])
def test_rebuild_to_other_shards_under_writes_loses_nothing(
    account: Account, service: Service, audience: str, shards: int, first: int
) -> None:
    clients = Clients(account, service.url, audience, first)
    wait_until(lambda: clients.changes, 60, "the first change")
    start_rebuild(account, shards)
    done = wait_until(lambda: finished_rebuild(account), 180, "the rebuild")
    assert (done["phase"], done["error"]) == ("done", None)
    clients.end()
    assert_index_soon_equals_database(account.database, timeout=120)
    assert len(nodes_with_primaries(account)) == shards


def test_killed_node_of_five_shards_loses_nothing(
    account: Account,
    service: Service,
    nodes: list[Node],  # noqa: F811
    audience: str,
) -> None:
    assert len(nodes_with_primaries(account)) == SHARDS
    witness = account.live.post("/consumers", json={"fullName": "Witness"}, headers={"Prefer": "wait=10"})
    assert witness.headers["Index-State"] == "searchable"
    clients = Clients(account, service.url, audience, 3 * CLIENTS)
    wait_until(lambda: clients.changes > CHANGES, 120, "changes before the fault")
    node = nodes[int(nodes_with_primaries(account)[0].removeprefix("node"))]
    node.kill()
    responses = [read_witness(account) for _ in range(50)]
    clients.end()
    responses.append(read_witness(account))
    assert {response.status_code for response in responses} <= {200, 503}
    assert all(response.json()["data"] for response in responses if response.is_success), "a list lacks a row"
    assert responses[-1].is_success
    assert_index_soon_equals_database(account.database, timeout=120)
    names = clients.names()
    query = sa.text("SELECT id, full_name FROM consumers WHERE id = ANY(:ids)")
    with account.database.engine.connect() as connection:
        assert {row.id: row.full_name for row in connection.execute(query, {"ids": list(names)})} == names
    node.start()
