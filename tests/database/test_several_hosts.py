"""Several hosts in DATABASE_URL: connections use the host that accepts writes, also after the hosts changed roles."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest
import sqlalchemy as sa

from infra.database.engine import open_async_engine, open_connection, open_engine
from infra.local import ports
from infra.local.postgres import Postgres
from infra.local.server import wait_ready
from infra.settings import Settings, load

PORT = sa.text("SELECT inet_server_port()")
TABLE = "trial"
PASSWORD = "secret"


class Hosts(NamedTuple):
    """Two servers with the same password; a trial table is in both."""

    first: str
    second: str

    @property
    def settings(self) -> Settings:
        """Settings with three hosts, of which the first does not answer."""
        parts = urlsplit(self.first)
        hosts = f"127.0.0.1:{ports.pick()},127.0.0.1:{self.port(self.first)},127.0.0.1:{self.port(self.second)}"
        url = f"postgresql://{parts.username}:{parts.password}@{hosts}{parts.path}"
        return load({"DATABASE_URL": url, "REDIS_URL": "redis://x", "OPENSEARCH_URL": "http://x", "DATABASE_POOL": "2"})

    @staticmethod
    def port(url: str) -> int:
        port = urlsplit(url).port
        assert port
        return port

    def make_primary(self, url: str) -> None:
        """Let one server alone accept writes. Connections stay open."""
        for each in (self.first, self.second):
            with psycopg.connect(each, autocommit=True) as connection:
                value = "off" if each == url else "on"
                connection.execute("SET default_transaction_read_only = off")
                connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
                connection.execute("SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    with ExitStack() as stack:
        for folder in folders:
            (folder / "postgresql.password").write_text(PASSWORD)
        servers = [Postgres(folder, durable=False) for folder in folders]
        for server in servers:
            server.spawn()
            stack.callback(server.stop)
        wait_ready(servers)
        hosts = Hosts(*(server.url for server in servers))
        for url in hosts:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"CREATE TABLE {TABLE} (n int)".encode())
        yield hosts


def test_every_client_uses_the_host_that_accepts_writes(hosts: Hosts) -> None:
    hosts.make_primary(hosts.second)
    engine = open_engine(hosts.settings, name="live")
    with engine.connect() as connection:
        assert connection.execute(PORT).scalar_one() == hosts.port(hosts.second)
    engine.dispose()
    with open_connection(hosts.settings.session_url) as connection:
        assert connection.execute("SELECT inet_server_port()").fetchone() == (hosts.port(hosts.second),)


async def change_primary(hosts: Hosts, statement: sa.TextClause) -> list[int]:
    """Use two connections, change the primary, and use both again; return the port that each statement used."""
    hosts.make_primary(hosts.first)
    engine = open_async_engine(hosts.settings)
    ports_used = []

    async def use() -> None:
        try:
            async with engine.begin() as connection:
                await connection.execute(statement)
                ports_used.append((await connection.execute(PORT)).scalar_one())
        except sa.exc.DBAPIError as error:
            ports_used.append(int(getattr(error.orig, "sqlstate", None) or 0))

    await asyncio.gather(use(), use())
    hosts.make_primary(hosts.second)
    for _ in range(3):
        await asyncio.gather(use(), use())
    await engine.dispose()
    return ports_used


def test_writes_follow_the_primary_though_connections_survive(hosts: Hosts) -> None:
    used = asyncio.run(change_primary(hosts, sa.text(f"INSERT INTO {TABLE} VALUES (1)")))
    first, second = hosts.port(hosts.first), hosts.port(hosts.second)
    assert used[:2] == [first, first]
    assert set(used[2:4]) <= {25006, second}
    assert used[4:] == [second] * 4


def test_reads_follow_the_primary_though_connections_survive(hosts: Hosts) -> None:
    """A connection that never writes meets no error on the former primary."""
    used = asyncio.run(change_primary(hosts, sa.text("SELECT 1")))
    assert used[:2] == [hosts.port(hosts.first)] * 2
    assert used[4:] == [hosts.port(hosts.second)] * 4


def test_worker_follows_the_primary_though_its_connection_survives(hosts: Hosts) -> None:
    hosts.make_primary(hosts.first)
    engine = open_engine(hosts.settings, name="live")

    def use() -> int:
        with engine.connect() as connection:
            return int(connection.execute(PORT).scalar_one())

    assert use() == hosts.port(hosts.first)
    hosts.make_primary(hosts.second)
    use()
    assert use() == hosts.port(hosts.second)
    engine.dispose()
