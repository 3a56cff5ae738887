"""Many clients write while processes and servers fail: no write is lost, no delete undone, no read silently stale."""

import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import redis
import sqlalchemy as sa

from infra.local.servers import LocalServers
from tests.guarantees.conftest import crash
from tests.guarantees.index_comparison import assert_index_soon_equals_database, find_differences
from tests.guarantees.random_client import RandomClient
from tests.mirror import Mirror
from tests.service import Database, Service, new_account
from tests.waiting import wait_until

CHANGES = int(os.environ.get("MIXED_WRITES", "10000"))
CLIENTS = 8
API_WORKERS = 2
CHANGES_PER_FAULT = 500
STATE = sa.text("SELECT id, full_name FROM consumers")
OLD_TOTALS = sa.text("""
    SELECT c.id FROM consumers c LEFT JOIN orders o ON o.consumer_id = c.id AND o.counts
    GROUP BY c.id HAVING count(o.id) <> c.total_orders""")


def fault_cycle(service: Service, servers: LocalServers) -> Iterator[Callable[[], object]]:
    """Yield faults without end; a worker stopped by one fault is started by the next."""

    def kill_api_process() -> None:
        for pid in sorted(service.children("api"))[-API_WORKERS:][:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def flush() -> None:
        with redis.Redis.from_url(servers.valkey.url) as client:
            client.flushall()

    return itertools.cycle(
        [
            partial(service.stop, "worker", signal.SIGKILL),
            partial(service.start, "worker"),
            kill_api_process,
            flush,
            partial(service.signal, "worker", signal.SIGSTOP),
            partial(service.signal, "worker", signal.SIGCONT),
        ]
    )


def stored_names(database: Database) -> dict[str, str]:
    with database.engine.connect() as connection:
        return {row.id: row.full_name for row in connection.execute(STATE)}


def test_mixed_writes_under_faults_lose_nothing(own_servers: LocalServers, own_service: Service) -> None:
    """The full proof has 100,000 changes: MIXED_WRITES=100000."""
    with new_account(own_service) as account:
        audience = account.live.post("/audiences", json={"name": "All", "type": "STATIC"}).raise_for_status().json()
        url = f"{own_service.url}/api/v1"
        mirrors = {resource: Mirror(account.live, resource) for resource in ("consumers", "orders")}
        clients = [RandomClient(account, url, audience["id"], number) for number in range(CLIENTS)]

        def reached(changes: int) -> bool:
            # The API ends if a process dies soon after the start; in production a supervisor restarts the API.
            if not own_service.running("api"):
                own_service.stop("api")
                own_service.start("api", workers=API_WORKERS)
            return sum(client.changes for client in clients) >= changes or all(client.done() for client in running)

        with ThreadPoolExecutor(CLIENTS + len(mirrors)) as pool:
            following = [pool.submit(mirror.follow) for mirror in mirrors.values()]
            running = [pool.submit(client.run, CHANGES // CLIENTS) for client in clients]
            crashes = {CHANGES // 3: own_servers.opensearch, 2 * CHANGES // 3: own_servers.postgres}
            for mark, fault in zip(
                range(0, CHANGES, CHANGES_PER_FAULT), fault_cycle(own_service, own_servers), strict=False
            ):
                wait_until(partial(reached, mark), 300, f"{mark} changes")
                fault()
                for due in [due for due in crashes if due <= mark]:
                    crash(crashes.pop(due))
            if own_service.running("worker"):
                own_service.signal("worker", signal.SIGCONT)
            wait_until(partial(reached, CHANGES), 300, "the last changes")
            for mirror in mirrors.values():
                mirror.stop()
        for done in (*running, *following):
            done.result()
        for mirror in mirrors.values():
            mirror.read()
        wait_until(own_servers.opensearch.ready, what="OpenSearch")
        assert_index_soon_equals_database(account.database, timeout=120)
    figures = {
        name: sum(getattr(client, name) for client in clients) for name in ("changes", "repeated", "reads", "stale")
    }
    print(figures, find_differences(account.database).counts())  # noqa: T201 (figures quoted in the documentation)
    expected = dict(itertools.chain.from_iterable(client.names.items() for client in clients))
    assert stored_names(account.database) == expected, "the stored names are those of the responses"
    assert {id_: copy["fullName"] for id_, copy in mirrors["consumers"].copy.items()} == expected
    orders = Counter(order["consumerId"] for order in mirrors["orders"].copy.values())
    totals = {id_: copy["totalOrders"] for id_, copy in mirrors["consumers"].copy.items() if copy["totalOrders"]}
    assert orders == totals
    assert [missed for client in clients for missed in client.missed] == []
    with account.database.engine.connect() as connection:
        assert connection.execute(OLD_TOTALS).all() == []
