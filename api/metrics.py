"""Metrics for Prometheus at `/metrics`.

Several API processes serve a port, and a scrape reaches any of the processes. So every process writes its metrics to
files in a shared folder, and the scraped process adds the files up (the multiprocess mode of prometheus-client). The
folder is named after the parent process: all workers of a server use the same folder, including the replacement of a
dead worker, and each start of the server gets a new folder. No label holds tenant data; routes are templates.
"""

import asyncio
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from litestar import Response, get
from litestar.datastructures import State
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from sqlalchemy.ext.asyncio import AsyncEngine

from api.index_metrics import IndexCollector, read_figures
from api.recent import Recent

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
CACHE_SECONDS = 3.0
"""The metrics are collected at most once in this period, however many scrapes there are."""
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of this process. A single instance per process."""

    def __init__(self) -> None:
        self._folder = _folder()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self._folder)
        values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]  # partly typed
        registry = CollectorRegistry()
        self._requests = Counter(
            "consumers_requests", "Answered requests.", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "consumers_request_seconds",
            "Time from the request headers to the end of the response.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._limited = Counter(
            "consumers_rate_limited_requests", "Requests answered 429.", ["category"], registry=registry
        )
        self._stale = Counter(
            "consumers_stale_answers", "Answers that may lack the write of their Consistency-Token.", registry=registry
        )
        self._waits = Histogram(
            "consumers_database_wait_seconds",
            "Time that a request waits for a connection to the database.",
            buckets=BUCKETS,
            registry=registry,
        )
        self._connections = Gauge(
            "consumers_database_connections_in_use",
            "Connections in use, over all pools.",
            multiprocess_mode="livesum",
            registry=registry,
        )

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count a request. `route` is None if no route matched."""
        method, route = method if method in METHODS else "other", route or "none"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def limited(self, category: str) -> None:
        self._limited.labels(category).inc()

    def stale(self) -> None:
        self._stale.inc()

    def waited(self, seconds: float) -> None:
        """Count the wait of a request for a connection."""
        self._waits.observe(seconds)

    def watch(self, engine: AsyncEngine) -> None:
        """Count the connections in use of a pool."""
        sa.event.listen(engine.sync_engine, "checkout", lambda *_: self._connections.inc())
        sa.event.listen(engine.sync_engine, "checkin", lambda *_: self._connections.dec())

    async def text(self, engine: AsyncEngine, servers: Collector) -> bytes:
        """Render the metrics of all processes of this server, of the indexer, and of the three servers."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._folder))  # type: ignore[no-untyped-call]  # partly typed
        registry.register(IndexCollector(await read_figures(engine)))
        registry.register(servers)
        # In a thread, because requests must not wait while the files of many processes are read.
        return await asyncio.to_thread(generate_latest, registry)


def _folder() -> Path:
    """Return this server's folder. Remove the folders of ended servers, and the gauges of dead workers."""
    parent = Path(tempfile.gettempdir())
    name = f"consumers-metrics-{os.getuid()}-"
    for existing in parent.glob(f"{name}*"):
        number = existing.name.removeprefix(name)
        if not (number.isdecimal() and _is_running(int(number))):
            shutil.rmtree(existing, ignore_errors=True)
    folder = parent / f"{name}{os.getppid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for file in folder.glob("gauge_livesum_*.db"):
        if not _is_running(pid := int(file.stem.rpartition("_")[2])):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # partly typed
    return folder


def _is_running(pid: int) -> bool:
    """Return whether a process of this user runs. A process of another user has got the number of an ended one."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, 0)
        return True
    return False


# Not in the OpenAPI document, because clients of the documented port get a 404.
@get("/metrics", include_in_schema=False, media_type=CONTENT_TYPE_LATEST)
async def metrics(state: State) -> Response[bytes]:
    recent: Recent[bytes] = state.metrics_text
    return Response(await recent.value())
