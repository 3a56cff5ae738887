"""A service with two filled environments, in a separate database on the servers of a run."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg
import sqlalchemy as sa

from infra.index import generations
from infra.local.servers import LocalServers
from tests.bench import population
from tests.bench.indexing import Built, build
from tests.bench.report import progress
from tests.bench.timing import seconds
from tests.service import Account, Database, Service, new_account, new_database
from tests.waiting import wait_until

SMALL = 5_000
UNREACHED = {"reads": 2_000_000_000, "writes": 2_000_000_000, "batch": 2_000_000_000}
"""Limits that are never reached, so that requests are counted."""
DYNAMIC = [f"totalOrderValue:>={least} AND metadata.country:{country}" for least in range(50, 1_050, 100)
           for country in ("GB", "DE")]  # fmt: skip
SETTLING_SECONDS = 3_600
"""Time until millions of changes of an import are searchable."""
INDEXING = ("worker", "background", "beat")


class Environment(NamedTuple):
    id: int
    key: str
    static: str
    dynamic: list[str]


class Shop(NamedTuple):
    database: Database
    service: Service
    large: Environment
    small: Environment
    size: int
    """Number of consumers of the large environment, without the small environment."""
    filled: float
    """Seconds of the insertion of the rows."""
    processes: int
    """Number of processes of the first build."""
    built: Built
    """Times of the first build of the index."""

    @property
    def prefix(self) -> str:
        return self.database.settings.index_prefix

    @property
    def index_name(self) -> str:
        """The name of the live index."""
        with self.database.engine.connect() as connection:
            return str(connection.execute(generations.LIVE).one().index_name)

    @property
    def consumers(self) -> int:
        return self.size + SMALL

    @property
    def address(self) -> str:
        return self.database.settings.database_url

    @contextmanager
    def indexing(self) -> Iterator[None]:
        """Run the workers and beat as well."""
        for name in INDEXING:
            self.service.start(name)
        try:
            yield
        finally:
            for name in INDEXING:
                self.service.stop(name)

    def settled(self) -> None:
        """Wait until every change is searchable."""
        empty = sa.text("SELECT NOT EXISTS (SELECT FROM outbox)")
        with self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            wait_until(lambda: connection.execute(empty).scalar_one(), timeout=SETTLING_SECONDS, what="the index")

    @contextmanager
    def account(self) -> Iterator[Account]:
        """Create an organization for a part of the run, so that parts do not share written data."""
        with new_account(self.service, limits=UNREACHED) as account:
            yield account


def key(account: Account) -> str:
    return account.live.headers["authorization"].removeprefix("Bearer ")


@contextmanager
def opened(servers: LocalServers, size: int, folder: Path) -> Iterator[Shop]:
    """Create and fill the database, build the index, and start the API only."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        database = stack.enter_context(new_database(servers))
        service = Service(database, folder)
        stack.callback(service.close)
        service.start("api")
        account = stack.enter_context(new_account(service, limits=UNREACHED))
        large = _environment(account.live, account.live_environment)
        small = _environment(account.test, account.test_environment)
        taken = seconds(lambda: _fill(database, [(size, large), (SMALL, small)]))
        processes = os.cpu_count() or 1
        built = build(database.engine, database.settings, processes)
        progress(f"{size:,} consumers: rows in {taken:.0f} s, index in {built.filling + built.verifying:.0f} s")
        yield Shop(database, service, large, small, size, taken, processes, built)


def _environment(client: httpx.Client, number: int) -> Environment:
    static = _audience(client, {"name": "stored", "type": "STATIC"})
    dynamic = [_audience(client, {"name": text, "type": "DYNAMIC", "filter": text}) for text in DYNAMIC]
    return Environment(number, client.headers["authorization"].removeprefix("Bearer "), static, dynamic)


def _audience(client: httpx.Client, new: dict[str, str]) -> str:
    response = client.post("/audiences", json=new)
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def _fill(database: Database, environments: Sequence[tuple[int, Environment]]) -> None:
    address = database.settings.database_url
    for size, environment in environments:
        population.fill(address, environment.id, environment.static, size)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
