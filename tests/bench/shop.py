"""A service on servers of its own with two filled environments, which may be kept from one run to the next.

`BENCH_DIR` names the folder to keep them in, `SIZE` the number of consumers (a million).
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from infra import db, documents, generations, keys, migrate, opensearch, organizations, settings
from infra.keys import SCOPES
from infra.local import ports
from infra.local.servers import KEEPING, LocalServers
from tests.bench import population
from tests.service import Database, Service

SIZE = int(os.environ.get("SIZE", "1000000"))
SMALL = 5_000
NAME = "bench"
UNREACHED = {"reads": 2_000_000_000}
"""A limit, so that requests are counted."""
DYNAMIC = [f"totalOrderValue:>={least} AND metadata.country:{country}" for least in range(50, 1_050, 100)
           for country in ("GB", "DE")]  # fmt: skip


class Environment(NamedTuple):
    id: int
    key: str
    static: str
    dynamic: list[str]


class Shop(NamedTuple):
    database: Database
    servers: LocalServers
    service: Service
    large: Environment
    small: Environment

    @property
    def prefix(self) -> str:
        return self.database.settings.index_prefix


@contextmanager
def opened() -> Iterator[Shop]:
    """Start it, filled."""
    with ExitStack() as stack:
        kept = os.environ.get("BENCH_DIR") or stack.enter_context(tempfile.TemporaryDirectory())
        folder = Path(kept).resolve() / str(SIZE)
        servers = stack.enter_context(LocalServers(folder, KEEPING, environ={}))
        addresses = {name.upper(): address for name, address in servers.addresses.items()}
        chosen = settings.load({**addresses, "INDEX_PREFIX": "bench", "PORT": str(ports.pick())})
        migrate.upgrade(chosen.database_url)
        generations.ensure(chosen)
        database = Database(chosen, db.engine(chosen), opensearch.client(chosen))
        stack.callback(database.engine.dispose)
        stack.callback(database.search.close)
        service = Service(database, folder)
        stack.callback(service.close)
        service.start("api")
        large, small = _environments(database, service)
        _fill(database, large, SIZE)
        _fill(database, small, SMALL)
        yield Shop(database, servers, service, large, small)


def _environments(database: Database, service: Service) -> list[Environment]:
    with database.engine.begin() as connection:
        if not any(organization.name == NAME for organization in organizations.every(connection)):
            organizations.create(connection, NAME)
            organizations.limit(connection, NAME, UNREACHED)
        found = [
            (organizations.environment_id(connection, NAME, mode), keys.create(connection, NAME, mode, scopes=SCOPES))
            for mode in organizations.MODES
        ]
    return [Environment(number, new.key, *_audiences(service, new.key)) for number, new in found]


def _audiences(service: Service, key: str) -> tuple[str, list[str]]:
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"{service.url}/api/v1", headers=headers, timeout=30) as client:
        if not client.get("/audiences").json()["data"]:
            client.post("/audiences", json={"name": "stored", "type": "STATIC"}).raise_for_status()
            for text in DYNAMIC:
                new = {"name": text, "type": "DYNAMIC", "filter": text}
                client.post("/audiences", json=new).raise_for_status()
        found = client.get("/audiences", params={"first": 100}).json()["data"]
    by_name = {audience["name"]: audience["id"] for audience in found}
    return by_name["stored"], [by_name[text] for text in DYNAMIC]


def _fill(database: Database, environment: Environment, size: int) -> None:
    """Fill an environment, unless an earlier run did."""
    alias = documents.read_alias(database.settings.index_prefix)
    query = {"query": {"term": {"environmentId": str(environment.id)}}}
    if (known := database.search.count(index=alias, body=query)["count"]) == size:
        return
    assert not known, f"{known} of {size} consumers are there: remove the folder"
    started = time.perf_counter()
    index = documents.index_name(database.settings.index_prefix, 1)
    population.fill(database.settings, index, environment.id, environment.static, size)
    database.search.indices.refresh(index=index)
    print(f"filled {size:,} in {time.perf_counter() - started:.0f} s\n", flush=True)  # noqa: T201 (while one waits)
