"""The metrics that Prometheus reads."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
import sqlalchemy as sa

from infra.operations.counters import DELAY_BOUNDS
from tests.metrics import metrics
from tests.service import Account, Database, Service, new_account
from tests.unit.test_monitoring import QUERIES, selectors
from tests.waiting import wait_until


@pytest.fixture
def workers(quiet: Database, tmp_path: Path) -> Iterator[Service]:
    """An API with three processes."""
    service = Service(quiet, tmp_path)
    service.start("api", workers=3)
    yield service
    service.close()


def pids(service: Service) -> list[int]:
    """Return the ids of the API's processes once all serve; before, an empty list."""
    log = service.log("api")
    started = re.findall(r"Started server process \[(\d+)\]", log)
    return [int(pid) for pid in started] if log.count("Application startup complete") == len(started) else []


def test_requests_are_counted_by_route_method_and_status(account: Account, service: Service) -> None:
    before = metrics(service)
    for number in range(3):
        account.live.get(f"/orders/none{number}")
    account.live.request("BREW", "/orders")
    now = metrics(service)
    route = "/api/v1/orders/{order_id}"
    counted = ("consumers_requests_total", "GET", route, "404")
    timed = ("consumers_request_seconds_count", "GET", route)
    for key in (counted, timed):
        assert now[key] - before.get(key, 0) == 3, key
    other = ("consumers_requests_total", "other", "none", "405")
    assert now[other] - before.get(other, 0) == 1
    assert not any("none0" in label for key in now for label in key)


def test_refused_requests_are_counted_by_category(service: Service) -> None:
    key = ("consumers_rate_limited_requests_total", "batch")
    before = metrics(service).get(key, 0)
    with new_account(service, limits={"batch": 1}) as account:
        statuses: list[int] = []

        def is_refused() -> bool:  # a request passes uncounted if Redis responds too late
            statuses.append(account.live.post("/consumers/batch", json=[]).status_code)
            return statuses[-1] == 429

        wait_until(is_refused, what="a refusal")
    assert metrics(service)[key] - before == 1


def test_no_label_reveals_tenant_data(account: Account, service: Service) -> None:
    created = account.live.post("/consumers", json={"email": "label@example.com"}).json()
    account.live.get(f"/consumers/{created['id']}", params={"include": "orders"})
    text = httpx.get(f"{service.operations_url}/metrics").text
    assert not [word for word in (created["id"], "label@", "sk_live", account.name, "org_") if word in text]


NOBODY = "cons_" + "0" * 26


def test_outbox_metrics_are_per_lane(service: Service, account: Account) -> None:
    row = """INSERT INTO outbox (environment_id, consumer_id, version, lane, created_at, parked_at)
        SELECT :id, :consumer, 1, :lane, now() - interval '90 seconds', CASE WHEN :parked THEN now() END
        FROM generate_series(1, 3)"""
    # Each of them drains: beat as well, once the workers are silent.
    with service.without("beat", "worker", "background"):
        for lane, parked in (("live", False), ("bulk", False), ("live", True)):
            before = metrics(service)  # an earlier test's changes may still be queued
            try:
                with account.database.engine.begin() as connection:
                    values = {"id": account.live_environment, "consumer": NOBODY, "lane": lane, "parked": parked}
                    connection.execute(sa.text(row), values)
                now = metrics(service)
            finally:
                with account.database.engine.begin() as connection:
                    connection.execute(sa.text("DELETE FROM outbox WHERE consumer_id = :id"), {"id": NOBODY})
            assert now["consumers_database_up",] == 1
            added = {key[0]: now[key] - before[key] for key in now if key[1:] == (lane,)}
            assert added["consumers_outbox_parked"] == (3 if parked else 0)
            assert added["consumers_outbox_waiting"] == (0 if parked else 3)
            assert (90 <= now["consumers_outbox_oldest_seconds", lane] < 150) == (not parked)


def test_metrics_show_servers_and_parts_of_the_indexer(account: Account, service: Service) -> None:
    parts = ("live", "bulk", "clock")
    processes = [("consumers_indexer_processes", part) for part in parts]
    wait_until(lambda: all(map(metrics(service).get, processes)), what="all parts")
    now = metrics(service)
    assert [now[f"consumers_{server}_up",] for server in ("database", "search", "queue")] == [1, 1, 1]
    for part in parts:
        assert now["consumers_indexer_silent_seconds", part] < 30
        assert now["consumers_indexer_processes", part] >= 1
    account.live.get("/orders")
    later = metrics(service)
    assert later["consumers_database_wait_seconds_count",] > now["consumers_database_wait_seconds_count",]


WAITING = [("consumers_outbox_waiting", lane) for lane in ("live", "bulk")]


def delays(values: dict[tuple[str, ...], float], lane: str) -> dict[float, float]:
    """Return the number of changes that were searchable within each bound, in seconds."""
    name = "consumers_commit_to_searchable_seconds_bucket"
    return {float(key[2]): value for key, value in values.items() if key[:2] == (name, lane)}


def test_indexer_metrics_are_per_lane(account: Account, service: Service) -> None:
    # An earlier test's changes may still be queued.
    wait_until(lambda: not any(map(metrics(service).get, WAITING)), what="the index")
    before = metrics(service)
    for number in range(3):
        account.live.post("/consumers", json={"fullName": f"Counted {number}"})
    account.settled()
    now = metrics(service)
    added = {key[0]: now[key] - before[key] for key in now if key[1:] == ("live",)}
    for name in ("indexed_changes_total", "indexed_documents_total", "commit_to_searchable_seconds_count"):
        assert added[f"consumers_{name}"] == 3, name
    for name in ("index_version_conflicts_total", "index_document_failures_total"):
        assert added[f"consumers_{name}"] == 0, name
    assert added["consumers_commit_to_searchable_seconds_sum"] > 0
    current, earlier = delays(now, "live"), delays(before, "live")
    assert list(current) == [*DELAY_BOUNDS, float("inf")]
    assert current[float("inf")] - earlier[float("inf")] == 3
    assert sorted(current.values()) == list(current.values())
    bulk = [key for key in now if key[1:] == ("bulk",) and not key[0].startswith("consumers_indexer_")]
    assert all(now[key] == before[key] for key in bulk)


def test_index_metrics_are_absent_while_the_database_is_away(quiet: Database, tmp_path: Path) -> None:
    nowhere = msgspec.structs.replace(quiet.settings, database_url="postgresql://nobody@127.0.0.1:9/none")
    service = Service(quiet._replace(settings=nowhere), tmp_path)
    service.start("api")
    try:
        values = metrics(service)
    finally:
        service.close()
    assert values["consumers_database_up",] == 0
    assert not [key for key in values if "outbox" in key[0] or "index" in key[0]]


def test_connections_in_use_return_to_zero(account: Account, service: Service) -> None:
    account.live.get("/orders")
    wait_until(lambda: metrics(service)["consumers_database_connections_in_use",] == 0, what="the connections")


def test_every_process_reports_totals_of_all_processes(workers: Service) -> None:
    key = ("consumers_requests_total", "GET", "/health/ready", "200")
    for _ in range(40):
        # Each request has its own connection, so any process may respond.
        httpx.get(f"{workers.url}/health/ready").raise_for_status()
    assert {metrics(workers)[key] for _ in range(20)} == {40}
    first = wait_until(lambda: pids(workers), what="the workers")
    os.kill(first[0], signal.SIGKILL)
    wait_until(lambda: len(pids(workers)) > len(first), what="the replacement worker")
    assert {metrics(workers)[key] for _ in range(20)} == {40}


def test_metrics_of_alerts_and_dashboard_are_scraped(service: Service) -> None:
    """Metrics of rebuilds, of requests and of 429 appear with the first of each."""
    scraped = set(re.findall(r"^# TYPE (\S+)", httpx.get(f"{service.operations_url}/metrics").text, re.MULTILINE))
    queries = [query for panel in QUERIES.values() for query in panel]
    queried = {re.sub("_bucket$", "", str(selector.name)) for query in queries for selector in selectors(query)}
    later = re.compile("consumers_(rebuild|request|rate_limited)")
    assert {name for name in queried - scraped if not later.match(name)} == set()
