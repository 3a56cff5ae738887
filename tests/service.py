"""The service under test: real processes against the real servers, and accounts in it."""

import itertools
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
import redis
import sqlalchemy as sa
from opensearchpy import OpenSearch

from infra import settings
from infra.accounts import keys, operators, organizations
from infra.accounts.keys import SCOPES
from infra.database import activity, epochs
from infra.database.engine import open_engine
from infra.index.client import open_client
from infra.local import ports
from infra.local.servers import LocalServers
from infra.operations import first_generation
from infra.queue import LIVE
from infra.settings import ROOT
from tests.databases import migrated_database
from tests.waiting import wait_until

_numbers = itertools.count(1)
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_queues = list(range(_PROCESS % _PROCESSES, 16, _PROCESSES))
"""Free database numbers of Valkey, so that a Celery worker takes messages from its own service only. The processes of
one test run have different numbers, because REDIS_URL may name one Valkey for all of them."""
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For HTTP clients: by default each of them loads all trusted certificates, which takes 20 ms; no test uses TLS."""
NO_LIMITS = {"reads": 0, "writes": 0, "batch": 0}
UNLIMITED_ADDRESSES = {"LIMIT_UNAUTHORIZED": "0"}
"""A setting of every service, because all tests have one address."""
NO_STOP_DELAY = {"STOP_DELAY_SECONDS": "0"}
"""A setting of every service, because no balancer has to notice a stop."""
UNLIMITED_OPERATORS = {"LIMIT_READS": "0", "LIMIT_WRITES": "0"}
"""Settings for tests with many requests of an operator: an operator's key has the limits of the settings."""


class Database(NamedTuple):
    """A database with its index: migrated, with a first generation."""

    settings: settings.Settings
    engine: sa.Engine
    search: OpenSearch

    @property
    def environ(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.settings.database_url,
            "REDIS_URL": self.settings.redis_url,
            "OPENSEARCH_URL": self.settings.opensearch_url,
            "INDEX_PREFIX": self.settings.index_prefix,
            "INDEX_SHARDS": str(self.settings.index_shards),
            "PORT": str(self.settings.port),
            **({"OPENSEARCH_CA": self.settings.opensearch_ca} if self.settings.opensearch_ca else {}),
            "METRICS_PORT": str(self.settings.operations_port),
        }

    def on_other_ports(self) -> "Database":
        """The same database for a further API."""
        other = {"port": ports.pick(), "metrics_port": ports.pick()}
        return self._replace(settings=msgspec.structs.replace(self.settings, **other))

    def documents(self, environment_id: int) -> dict[str, dict[str, object]]:
        """All documents of an environment, tombstones too, by id."""
        body = {"query": {"term": {"environmentId": str(environment_id)}}, "size": 10_000}
        hits = self.search.search(index=f"{self.settings.index_prefix}-0*", body=body)["hits"]["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits}

    def waiting(self, environment_id: int) -> int:
        """Changes of an environment that may not be searchable yet."""
        with self.engine.connect() as connection:
            query = sa.text("SELECT count(*) FROM outbox WHERE environment_id = :id AND parked_at IS NULL")
            return int(connection.execute(query, {"id": environment_id}).scalar_one())


@contextmanager
def new_database(servers: LocalServers, environ: Mapping[str, str] = MappingProxyType({})) -> Iterator[Database]:
    """A database, an index prefix and a queue of its own on the shared servers. `environ` may hold INDEX_SHARDS."""
    with migrated_database(servers, f"test_{next(_numbers)}") as url, database_at(servers, url, environ) as database:
        yield database


@contextmanager
def database_at(
    servers: LocalServers, url: str, environ: Mapping[str, str] = MappingProxyType({}), *, is_migrated: bool = True
) -> Iterator[Database]:
    """An index and a queue for a migrated database; the environment may hold other addresses of the servers.

    A database that is not migrated yet gets its index from `consumers migrate`.

    INDEX_SHARDS=5 in the environment of the tests runs them with so many shards.
    """
    queue = _queues.pop()
    index = {name: os.environ[name] for name in ("INDEX_SHARDS", "INDEX_REPLICAS") if name in os.environ}
    addresses = {key.upper(): value for key, value in servers.addresses.items()} | index | dict(environ)
    own_ports = {name: str(ports.pick()) for name in ("PORT", "METRICS_PORT")}
    chosen = settings.load(
        {"INDEX_PREFIX": f"test-{os.getpid()}-{next(_numbers)}"}
        | own_ports
        | addresses
        | {"DATABASE_URL": url, "REDIS_URL": urlsplit(addresses["REDIS_URL"])._replace(path=f"/{queue}").geturl()}
    )
    if is_migrated:
        first_generation.ensure(chosen)
    engine, search = open_engine(chosen, pool_size=5), open_client(chosen)
    try:
        if is_migrated:
            with engine.begin() as connection:
                # As beat does: other writers wait for the transaction that begins an epoch.
                epochs.check(connection)
        yield Database(chosen, engine, search)
    finally:
        engine.dispose()
        search.indices.delete(index=f"{chosen.index_prefix}-0*")
        search.close()
        with redis.Redis.from_url(chosen.redis_url) as client:
            client.flushdb()
        _queues.append(queue)


CELERY = ("celery", "-A", "indexer.worker")
ALONE = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class Service:
    """API, worker and beat as processes, each of which a test may kill and start again."""

    COMMANDS: dict[str, list[str]] = {  # noqa: RUF012 (a constant)
        "api": ["api.server"],
        "worker": [*CELERY, "worker", "-Q", "live", "-c", "1", "-n", "live@%h", *ALONE],
        "background": [*CELERY, "worker", "-Q", "bulk,rebuild", "-c", "2", "-n", "bulk@%h", *ALONE],
        "beat": [*CELERY, "beat"],
    }

    def __init__(
        self,
        database: Database,
        folder: Path,
        environ: Mapping[str, str] = MappingProxyType({}),
        *,
        root: Path = ROOT,
    ) -> None:
        """Take the database; `root` is the folder of the code, which may be of another release."""
        self.database, self._folder, self._root = database, folder, root
        exports = {"EXPORTS_URL": self.exports_url}
        self._environ = database.environ | exports | UNLIMITED_ADDRESSES | NO_STOP_DELAY | dict(environ)
        self._running: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.database.settings.port}"

    @property
    def exports_url(self) -> str:
        """The store for the files of exports."""
        return (self._folder / "exports").as_uri()

    @property
    def operations_url(self) -> str:
        """The address of `/metrics` and `/health/…`."""
        return f"http://127.0.0.1:{self.database.settings.operations_port}"

    def start_all(self, *, workers: int = 1) -> None:
        """Start every process, and wait until the API answers and the live lane is drained by its worker."""
        for name in ("worker", "background", "beat"):
            self.start(name)
        self.start("api", workers=workers)
        self.wait_for_worker()

    def wait_for_worker(self) -> None:
        """Wait until the worker polls for changes; until then the fallback poller drains the live lane."""
        wait_until(self._is_drained_by_worker, timeout=60, what="the worker")

    def start(self, name: str, *, workers: int = 1) -> None:
        log = (self._folder / f"{name}.log").open("ab")
        command = [*_ending_with_this_process(name), sys.executable, "-m", *self.COMMANDS[name]]
        own = {"API_WORKERS": str(workers), "LIVENESS_FILE": str(self._liveness_file(name))}
        environ = os.environ | self._environ | own
        process = subprocess.Popen(command, env=environ, cwd=self._root, stdout=log, stderr=log, start_new_session=True)
        self._running[name] = (process, log)
        if name == "api":
            wait_until(self._answers, what="the API")

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End a process with all that it started; SIGKILL leaves it no time for anything."""
        if number == signal.SIGKILL:
            os.killpg(self.pid(name), number)
        else:
            self._running[name][0].send_signal(number)
        self._wait_for_end(name)

    @contextmanager
    def without(self, *names: str) -> Iterator[None]:
        """These are stopped for so long, and started again."""
        for name in names:
            self.stop(name)
        try:
            yield
        finally:
            for name in names:
                self.start(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send it to a process and to all that it started."""
        os.killpg(self.pid(name), number)

    def pid(self, name: str) -> int:
        return self._running[name][0].pid

    def running(self, name: str) -> bool:
        return name in self._running and self._running[name][0].poll() is None

    def children(self, name: str) -> list[int]:
        """The processes that it started itself."""
        found = subprocess.run(["pgrep", "-P", str(self.pid(name))], stdout=subprocess.PIPE, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def silence(self, name: str) -> float:
        """The age of the liveness file of a worker or beat, in seconds."""
        return time.time() - self._liveness_file(name).stat().st_mtime

    def _liveness_file(self, name: str) -> Path:
        return self._folder / f"{name}.alive"

    def close(self) -> None:
        """Stop all processes at the same time, because a worker takes seconds to end."""
        for process, _ in self._running.values():
            process.send_signal(signal.SIGTERM)
        for name in list(self._running):
            self._wait_for_end(name)

    def _wait_for_end(self, name: str) -> None:
        process, log = self._running.pop(name)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()

    def _is_drained_by_worker(self) -> bool:
        with self.database.engine.connect() as connection:
            seconds = activity.seconds_since_query(connection, LIVE)
        return seconds is not None and seconds < 1

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/live", verify=NO_CERTIFICATES).is_success
        except httpx.TransportError:
            return False


def _ending_with_this_process(name: str) -> list[str]:
    """Return the prefix of a command that ends with this process, even if no fixture gets to end it.

    The API stops its own children on SIGTERM. Those of a killed Celery worker end by themselves.
    """
    if sys.platform != "linux":
        return []
    death = signal.SIGTERM if name == "api" else signal.SIGKILL
    return ["setpriv", f"--pdeathsig={death.name}", "--"]


class PatientService(Service):
    """A service whose API waits longer for Redis than usual, because the machine of the tests is busy."""

    COMMANDS = Service.COMMANDS | {"api": ["tests.patient_api"]}


@contextmanager
def new_service(
    servers: LocalServers, folder: Path, environ: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Service]:
    """The whole service on a database of its own, with its logs in a folder."""
    index = {name: value for name, value in environ.items() if name.startswith("INDEX_")}
    with new_database(servers, index) as database:
        running = PatientService(database, folder, environ)
        try:
            running.start_all()
            yield running
        finally:
            running.close()


class Account(NamedTuple):
    """An organization of one test, with a key for each environment."""

    name: str
    live: httpx.Client
    test: httpx.Client
    live_environment: int
    test_environment: int
    database: Database
    operator: httpx.Client
    """Carries an operator's key, which belongs to no organization: for the paths below `/ops`."""

    def settled(self) -> None:
        """Wait until everything written is searchable."""
        for environment in (self.live_environment, self.test_environment):
            wait_until(lambda number=environment: not self.database.waiting(number), what="the index")  # type: ignore[misc]


@contextmanager
def new_account(
    service: Service, *, currency: str = "USD", region: str | None = None, limits: Mapping[str, int] = NO_LIMITS
) -> Iterator[Account]:
    """An organization with nothing in it; its clients carry keys with every scope."""
    name = f"org {next(_numbers)}"
    with service.database.engine.begin() as connection:
        organizations.create(connection, name, currency=currency, region=region)
        organizations.set_limits(connection, name, dict(limits))
        live = keys.create(connection, name, "live", scopes=SCOPES)
        test = keys.create(connection, name, "test", scopes=SCOPES)
        operator = operators.create(connection, name=name)
        numbers = [organizations.environment_id(connection, name, mode) for mode in organizations.MODES]
    with ExitStack() as stack:
        clients = [stack.enter_context(_client(service, made.key)) for made in (live, test, operator)]
        yield Account(name, clients[0], clients[1], numbers[0], numbers[1], service.database, clients[2])


def _client(service: Service, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=f"{service.url}/api/v1", headers=headers, timeout=30, verify=NO_CERTIFICATES)


@pytest.fixture(scope="session")
def service(servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The whole service, shared: a test that stops a part of it starts that again."""
    with new_service(servers, tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def account(service: Service) -> Iterator[Account]:
    with new_account(service) as account:
        yield account


@pytest.fixture
def quiet(servers: LocalServers) -> Iterator[Database]:
    """A database that nobody drains but the test itself."""
    with new_database(servers) as database:
        yield database
