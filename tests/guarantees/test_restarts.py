"""Restarts of API processes behind a load balancer: no request fails."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.balancer import Balancer
from tests.guarantees.random_client import RandomClient, wait_for_changes
from tests.service import Service, new_account

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
