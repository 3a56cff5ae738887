"""Restarts of API processes behind a load balancer: no request fails."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from tests.balancer import Balancer
from tests.guarantees.random_client import RandomClient, wait_for_changes
from tests.service import Account, Service, new_account
from tests.waiting import wait_until

CLIENTS, RESTARTS = 6, 4
CHANGES_BETWEEN = 100


def test_restarted_apis_lose_no_request(service: Service, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The balancer learns of a restart only because the port refuses connections."""
    with ExitStack() as stack:
        apis = [
            Service(service.database.on_other_ports(), tmp_path_factory.mktemp("api"), {"API_WORKERS": "1"})
            for _ in range(2)
        ]
        for api in apis:
            stack.callback(api.close)
            api.start("api")
        balancer = stack.enter_context(Balancer(*(api.database.settings.port for api in apis)))
        account = stack.enter_context(new_account(service))
        audience = account.live.post("/audiences", json={"name": "All", "type": "STATIC"}).raise_for_status().json()
        url = f"{balancer.url}/api/v1"
        clients = [RandomClient(account, url, audience["id"], number) for number in range(CLIENTS)]
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        running = [pool.submit(client.run) for client in clients]
        try:
            for number in range(RESTARTS):
                wait_for_changes(clients, CHANGES_BETWEEN)
                apis[number % 2].stop("api")
                apis[number % 2].start("api")
        finally:
            for client in clients:
                client.stop()
        for done in running:
            done.result()
        account.settled()
    assert [client.repeated for client in clients] == [0] * CLIENTS
    assert [failed for client in clients for failed in client.failed_reads] == []
    assert [missed for client in clients for missed in client.missed] == []


def test_stopping_api_is_not_ready_and_answers_every_request(
    service: Service, account: Account, tmp_path_factory: pytest.TempPathFactory
) -> None:
    api = Service(service.database.on_other_ports(), tmp_path_factory.mktemp("api"), {"STOP_DELAY_SECONDS": "3"})
    api.start("api")
    indexer = ("worker", "beat")
    with ExitStack() as stack:
        stack.callback(api.close)
        client = stack.enter_context(httpx.Client(base_url=api.url, headers=account.live.headers, timeout=30))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        for name in indexer:
            service.signal(name, signal.SIGSTOP)
            stack.callback(service.signal, name, signal.SIGCONT)
        waiting = pool.submit(client.post, "/api/v1/consumers", json={}, headers={"Prefer": "wait=10"})
        wait_until(lambda: account.database.waiting(account.live_environment), what="the write")
        os.kill(api.pid("api"), signal.SIGTERM)
        wait_until(lambda: client.get("/health/ready").json()["status"] == "stopping", what="the stop")
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
        assert client.get("/api/v1/orders").status_code == 200
        response = waiting.result()
    assert (response.status_code, response.headers["Index-State"]) == (201, "pending")
