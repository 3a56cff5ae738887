"""How soon a write is searchable, and what an OpenSearch that is away costs writes: on servers of its own.

`python -m tests.bench.freshness` prints two Markdown tables and ends by itself after about two minutes.
"""
# ruff: noqa: T201 (tables are what it is for)

import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from infra.local.server import wait_ready
from infra.local.servers import KEEPING, LocalServers
from tests.service import Account, Service, new_account, new_database

PROBES = 100
CLIENTS = 4


def probe(account: Account, headers: dict[str, str]) -> httpx.Response:
    answer = account.live.post("/consumers", json={"fullName": f"Probe {time.time_ns()}"}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer


def waited(account: Account) -> float:
    """Milliseconds until a POST that waits is answered."""
    started = time.perf_counter()
    assert probe(account, {"Prefer": "wait=10"}).headers["index-state"] == "searchable"
    return (time.perf_counter() - started) * 1000


def unwaited(account: Account) -> float:
    """Milliseconds from the end of a POST until a list holds it."""
    token = probe(account, {}).headers["consistency-token"]
    started = time.perf_counter()
    headers = {"Consistency-Token": token, "Prefer": "wait=10"}
    answer = account.live.get("/consumers", params={"first": 1}, headers=headers)
    assert "index-stale" not in answer.headers
    return (time.perf_counter() - started) * 1000


def posted(account: Account) -> float:
    """Milliseconds of a POST."""
    started = time.perf_counter()
    probe(account, {})
    return (time.perf_counter() - started) * 1000


@contextmanager
def writes(account: Account, rate: int) -> Iterator[None]:
    """So many POSTs a second meanwhile, from a few clients."""
    over = threading.Event()

    def write() -> None:
        started, done = time.monotonic(), 0
        while not over.is_set():
            posted(account)
            done += 1
            over.wait(max(0.0, started + done * CLIENTS / rate - time.monotonic()))

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(write) for _ in range(CLIENTS if rate else 0)]
        try:
            yield
        finally:
            over.set()
    for one in running:
        one.result()


def figures(measure: Callable[[Account], float], account: Account) -> str:
    for _ in range(PROBES // 10):
        measure(account)
    times = []
    for _ in range(PROBES):
        times.append(measure(account))
        time.sleep(0.03)  # not in step with the drain
    return f"{statistics.median(times):.0f} | {statistics.quantiles(times, n=100)[-1]:.0f} | {max(times):.0f}"


def measure_freshness(account: Account) -> None:
    print("| until searchable, ms | writes/s beside it | p50 | p99 | max |\n|---|---|---|---|---|")
    for rate in (0, 50, 200):
        with writes(account, rate):
            for name, measure in (("waited", waited), ("unwaited", unwaited)):
                print(f"| {name} | {rate} | {figures(measure, account)} |", flush=True)


def measure_outage(account: Account, servers: LocalServers) -> None:
    print("\n| a POST, ms, with OpenSearch | p50 | p99 | max |\n|---|---|---|---|")
    print(f"| running | {figures(posted, account)} |", flush=True)
    os.kill(servers.opensearch.pid, signal.SIGSTOP)
    print(f"| hanging | {figures(posted, account)} |", flush=True)
    os.kill(servers.opensearch.pid, signal.SIGCONT)
    servers.opensearch.kill()
    print(f"| gone | {figures(posted, account)} |", flush=True)
    servers.opensearch.spawn()
    wait_ready([servers.opensearch])


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = stack.enter_context(LocalServers(folder, KEEPING))
        database = stack.enter_context(new_database(servers))
        service = Service(database, folder)
        stack.callback(service.close)
        for name in Service.COMMANDS:
            service.start(name)
        account = stack.enter_context(new_account(service))
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the beginning\n")
        measure_freshness(account)
        measure_outage(account, servers)
        print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
