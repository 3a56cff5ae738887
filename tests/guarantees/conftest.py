"""A pipeline shared by the tests of a file, and the whole service on private servers, for tests to kill."""

from collections.abc import Iterator

import pytest

from infra.local.errors import LocalError
from infra.local.server import Server
from infra.local.servers import THROWAWAY, LocalServers
from tests.indexer.conftest import Pipeline, new_pipeline
from tests.server_folders import server_folder
from tests.service import UNLIMITED_OPERATORS, Service, new_database
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def shared_pipeline(servers: LocalServers) -> Iterator[Pipeline]:
    """A pipeline drained only by the tests of this file."""
    with new_database(servers) as database, new_pipeline(database) as pipeline:
        yield pipeline


@pytest.fixture(scope="session")
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServers]:
    """Servers for the files with crashes (`parts.WITH_OWN_SERVERS`). PostgreSQL is durable, because tests kill it."""
    profile = THROWAWAY._replace(durable=True)
    with server_folder(tmp_path_factory) as folder, LocalServers(folder, profile, environ={}) as running:
        yield running


@pytest.fixture(scope="module")
def own_service(own_servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The whole service on the private servers, with two processes of the API."""
    with new_database(own_servers) as database:
        running = Service(database, tmp_path_factory.mktemp("service"), UNLIMITED_OPERATORS)
        try:
            running.start_all(workers=2)
            yield running
        finally:
            running.close()


def crash(server: Server) -> None:
    """Kill a server with `kill -9`, and restart the server."""
    server.kill()
    start(server)


def start(server: Server) -> None:
    """Start a server on the same port and data; repeat until the processes of a killed PostgreSQL have ended."""
    wait_until(lambda: _try_start(server), timeout=60, what=server.name)


def _try_start(server: Server) -> bool:
    try:
        server.start()
    except LocalError:
        return False
    return True
