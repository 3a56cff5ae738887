"""Two APIs behind HAProxy: each of the three servers is stopped, frozen and slow, and every process is restarted.

Writes fail only without PostgreSQL, reads only without PostgreSQL or OpenSearch, and a restart fails no request.
"""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple

import httpx
import pytest

from infra.local.server import Server
from infra.local.servers import THROWAWAY, LocalServers
from tests.cluster.haproxy import PROGRAM, Haproxy
from tests.cluster.server_faults import frozen, slow, stopped
from tests.guarantees.index_comparison import assert_index_soon_equals_database
from tests.service import Account, Service, new_account, new_database
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(PROGRAM is None, reason="haproxy is not installed: install Debian's package of this name"),
]

ENVIRON = {"STOP_DELAY_SECONDS": "5"}
"""The default: the balancer has to notice the stop."""
WORKERS = ("worker", "background")
"""The worker beside each API."""
CLIENTS = 4
REQUESTS = 40
"""Requests of each kind that must succeed between two steps."""
PATIENCE_SECONDS = 120
ANSWERS = 6
"""As many in a row show that no request goes to an API that hangs."""


class Failure(NamedTuple):
    """A request that was not answered with success."""

    kind: str
    answer: str


class Client:
    """Writes and reads through the balancer until `stop`; every second client waits for its writes."""

    def __init__(self, haproxy: Haproxy, account: Account, number: int) -> None:
        headers = {"Authorization": account.live.headers["Authorization"]}
        self._http = httpx.Client(base_url=f"{haproxy.url}/api/v1", headers=headers, timeout=40, verify=haproxy.tls)
        self._prefer = {"Prefer": "wait=10"} if number % 2 else {}
        self._is_stopped = False
        self.succeeded = {"write": 0, "read": 0}
        self.failures: list[Failure] = []

    def run(self) -> None:
        with self._http:
            while not self._is_stopped:
                created = self._send("write", "POST", "/consumers", {"fullName": "Ann Lee"})
                self._send("read", "GET", "/consumers?search=ann&first=5")
                if created is not None:
                    self._send("write", "PUT", f"/consumers/{created.json()['id']}", {"fullName": "Ann Smith"})
                    self._send("write", "DELETE", f"/consumers/{created.json()['id']}")

    def stop(self) -> None:
        self._is_stopped = True

    def _send(self, kind: str, method: str, path: str, body: dict[str, str] | None = None) -> httpx.Response | None:
        headers = self._prefer if kind == "write" else {}
        try:
            response = self._http.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            self.failures.append(Failure(kind, repr(error)))
            return None
        if not response.is_success:
            self.failures.append(Failure(kind, f"{response.status_code} {response.text}"))
            return None
        self.succeeded[kind] += 1
        return response


class Deployment(NamedTuple):
    """Two APIs behind HAProxy, one worker of each kind, two beats, and an account."""

    services: list[Service]
    servers: LocalServers
    haproxy: Haproxy
    account: Account

    @contextmanager
    def load(self) -> Iterator[list[Client]]:
        """Run the clients. A worker may have ended without its broker: a supervisor starts it again."""
        for service, worker in zip(self.services, WORKERS, strict=True):
            if not service.running(worker):
                self.restart(service, worker)
        clients = [Client(self.haproxy, self.account, number) for number in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            running = [pool.submit(client.run) for client in clients]
            try:
                wait_for_successes(clients, "write", "read")
                yield clients
            finally:
                for client in clients:
                    client.stop()
            for done in running:
                done.result()

    def get(self, path: str) -> httpx.Response:
        """Send a request through HAProxy, on a connection of its own."""
        headers = {"Authorization": self.account.live.headers["Authorization"]}
        return httpx.get(f"{self.haproxy.url}/api/v1{path}", headers=headers, verify=self.haproxy.tls)

    def restart(self, service: Service, name: str) -> None:
        """Stop a process and start it again, as docs/upgrading.md says."""
        service.stop(name)
        service.start(name)
        if name == "api":
            wait_until(lambda: httpx.get(f"{service.url}/health/ready").is_success, what="a ready API")


def wait_for_successes(clients: list[Client], *kinds: str) -> None:
    """Wait until all clients together have a number of further successful requests of each kind."""
    for kind in kinds:
        goal = sum(client.succeeded[kind] for client in clients) + REQUESTS
        wait_until(
            lambda kind=kind, goal=goal: sum(client.succeeded[kind] for client in clients) >= goal,  # type: ignore[misc]
            PATIENCE_SECONDS,
            f"{REQUESTS} successes: {kind}",
        )


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with ExitStack() as stack:
        profile = THROWAWAY._replace(durable=True)
        servers = stack.enter_context(LocalServers(tmp_path_factory.mktemp("servers"), profile, environ={}))
        database = stack.enter_context(new_database(servers))
        services = [
            Service(each, tmp_path_factory.mktemp("service"), ENVIRON) for each in (database, database.on_other_ports())
        ]
        for service in services:
            stack.callback(service.close)
        for service, worker in zip(services, WORKERS, strict=True):
            for name in (worker, "beat", "api"):
                service.start(name)
        haproxy = Haproxy(tmp_path_factory.mktemp("haproxy"), [service.database.settings.port for service in services])
        account = stack.enter_context(new_account(services[0]))
        yield Deployment(services, servers, stack.enter_context(haproxy), account)


FAULTS: dict[str, Callable[[Server], AbstractContextManager[None]]] = {
    "stopped": stopped,
    "frozen": frozen,
    "slow": slow,
}
FAILING = {
    ("postgres", "stopped"): {"write", "read"},
    ("postgres", "frozen"): {"write", "read"},
    ("opensearch", "stopped"): {"read"},
    ("opensearch", "frozen"): {"read"},
}
"""The requests that may fail in a fault; in all others none."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["postgres", "opensearch", "valkey"])
def test_fault_of_a_server_fails_only_requests_that_need_it(deployment: Deployment, name: str, fault: str) -> None:
    failing = FAILING.get((name, fault), set())
    server: Server = getattr(deployment.servers, name)
    with deployment.load() as clients:
        with FAULTS[fault](server):
            for kind in failing:
                wait_until(
                    lambda kind=kind: any(failure.kind == kind for client in clients for failure in client.failures),  # type: ignore[misc]
                    PATIENCE_SECONDS,
                    f"a failed request: {kind}",
                )
            wait_for_successes(clients, *({"write", "read"} - failing))
            if (name, fault) == ("postgres", "stopped"):
                wait_until(
                    lambda: deployment.haproxy.is_logged("0 active and 2 backup servers left"), what="the checks"
                )
                assert deployment.get("/consumers").json()["error"] == "Database unavailable"
        wait_for_successes(clients, "write", "read")
    failures = {failure for client in clients for failure in client.failures}
    assert {failure for failure in failures if failure.kind not in failing} == set()
    if fault == "stopped":
        # The API answers, not the proxy: the error names the server that is away.
        assert {failure for failure in failures if "unavailable" not in failure.answer} == set()
    assert_index_soon_equals_database(deployment.account.database, timeout=120)


def test_restart_of_every_process_fails_no_request(deployment: Deployment) -> None:
    with deployment.load() as clients:
        for service, worker in zip(deployment.services, WORKERS, strict=True):
            for name in ("api", worker, "beat"):
                deployment.restart(service, name)
                wait_for_successes(clients, "write", "read")
    assert [failure for client in clients for failure in client.failures] == []
    for api in ("api1", "api2"):
        # Noticed before the port was closed.
        assert deployment.haproxy.is_logged(f"Server api/{api} is DOWN, reason: Layer7 wrong status, code: 503")
    assert_index_soon_equals_database(deployment.account.database, timeout=120)


def test_restart_of_the_apis_answers_waiting_requests(deployment: Deployment) -> None:
    """No worker and no beat runs, so every write with `Prefer: wait=10` waits until its API stops."""
    first, second = deployment.services
    with deployment.load() as clients, first.without("worker", "beat"), second.without("beat"):
        for service in deployment.services:
            deployment.restart(service, "api")
    assert [failure for client in clients for failure in client.failures] == []
    assert_index_soon_equals_database(deployment.account.database, timeout=120)


def test_hanging_api_gets_no_further_request(deployment: Deployment) -> None:
    second = deployment.services[1]

    def is_answered() -> bool:
        try:
            return deployment.get("/orders").is_success
        except httpx.TransportError:
            return False

    second.signal("api", signal.SIGSTOP)
    try:
        wait_until(
            lambda: deployment.haproxy.is_logged("Server api/api2 is DOWN, reason: Layer7 timeout"), what="the check"
        )
        wait_until(lambda: all(is_answered() for _ in range(ANSWERS)), what=f"{ANSWERS} answers in a row")
    finally:
        second.signal("api", signal.SIGCONT)
    wait_until(lambda: httpx.get(f"{second.url}/health/ready").is_success, what="a ready API")


def test_proxy_forwards_what_merchants_use_and_nothing_else(deployment: Deployment) -> None:
    headers = {"Authorization": deployment.account.live.headers["Authorization"], "X-Filler": "x" * 31_000}
    with httpx.Client(base_url=deployment.haproxy.url, verify=deployment.haproxy.tls) as client:
        statuses = {
            path: client.get(path, headers=headers).status_code
            for path in (
                "/api/v1/consumers",
                "/docs",
                "/openapi.json",
                "/health/ready",
                "/metrics",
                "/health/other",
                "/",
            )
        }
    assert [path for path, status in statuses.items() if status == 404] == ["/metrics", "/health/other", "/"]
    assert {status for status in statuses.values() if status != 404} == {200}
