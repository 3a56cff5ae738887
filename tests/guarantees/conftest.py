"""Databases that the tests of a file share, and the whole service on servers of its own, which a test may kill."""

from collections.abc import Iterator

import pytest

from infra.local.errors import LocalError
from infra.local.server import Server
from infra.local.servers import THROWAWAY, LocalServers
from tests.indexer.conftest import Pipeline, new_pipeline
from tests.service import Service, new_database
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def drained_here(servers: LocalServers) -> Iterator[Pipeline]:
    """A pipeline that only the tests of this file drain."""
    with new_database(servers) as database, new_pipeline(database) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServers]:
    """Servers that nobody else needs. PostgreSQL keeps what it has committed, as it is to be killed."""
    profile = THROWAWAY._replace(durable=True)
    with LocalServers(tmp_path_factory.mktemp("servers"), profile, environ={}) as running:
        yield running


@pytest.fixture(scope="module")
def own_service(own_servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The whole service on them, with two processes of the API."""
    with new_database(own_servers) as database:
        running = Service(database, tmp_path_factory.mktemp("service"))
        try:
            running.start("api", workers=2)
            for name in ("worker", "background", "beat"):
                running.start(name)
            yield running
        finally:
            running.close()


def crash(server: Server) -> None:
    """End a server by `kill -9`, and start it again."""
    server.kill()
    start(server)


def start(server: Server) -> None:
    """Start it on the port and data it had, again and again: what a killed PostgreSQL has left must end first."""
    wait_until(lambda: _comes_up(server), timeout=60, what=server.name)


def _comes_up(server: Server) -> bool:
    try:
        server.start()
    except LocalError:
        return False
    return True
