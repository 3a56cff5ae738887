"""What Prometheus reads at `/metrics`.

Several API processes serve one port, and a scrape reaches any of them. So all count into files of one folder, which
whoever is asked adds up (prometheus-client's multiprocess mode). The folder is named after the parent process, hence
the same for all workers of a server, also for one that takes a dead one's place, and new with every start.
No label holds anything of a tenant's; routes are templates.
"""

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
from sqlalchemy.ext.asyncio import AsyncEngine

from api.index_metrics import IndexCollector, figures

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """What this process counts. One a process."""

    def __init__(self) -> None:
        self._folder = _folder()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self._folder)
        values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]  # partly typed
        own = CollectorRegistry()
        self._requests = Counter(
            "consumers_requests", "Requests answered.", ["method", "route", "status"], registry=own
        )
        self._seconds = Histogram(
            "consumers_request_seconds",
            "From a request's head to the end of its answer.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=own,
        )
        self._limited = Counter("consumers_rate_limited_requests", "Requests answered 429.", ["category"], registry=own)
        self._connections = Gauge(
            "consumers_database_connections_in_use",
            "Connections of the pools that are in use.",
            multiprocess_mode="livesum",
            registry=own,
        )

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count a request; `route` is None for what no route answers."""
        method, route = method if method in METHODS else "other", route or "none"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def limited(self, category: str) -> None:
        self._limited.labels(category).inc()

    def watch(self, engine: AsyncEngine) -> None:
        """Follow how many connections of a pool are in use."""
        sa.event.listen(engine.sync_engine, "checkout", lambda *_: self._connections.inc())
        sa.event.listen(engine.sync_engine, "checkin", lambda *_: self._connections.dec())

    async def text(self, engine: AsyncEngine) -> bytes:
        """All that is known just now, of every process of this server, and of the indexer."""
        everything = CollectorRegistry()
        MultiProcessCollector(everything, path=str(self._folder))  # type: ignore[no-untyped-call]  # partly typed
        everything.register(IndexCollector(await figures(engine)))
        return generate_latest(everything)


def _folder() -> Path:
    """This server's folder. Those of servers that ended are removed, and the gauges of its own dead workers."""
    parent = Path(tempfile.gettempdir())
    name = f"consumers-metrics-{os.getuid()}-"
    for other in parent.glob(f"{name}*"):
        if not _lives(int(other.name.removeprefix(name))):
            shutil.rmtree(other, ignore_errors=True)
    folder = parent / f"{name}{os.getppid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for file in folder.glob("gauge_livesum_*.db"):
        if not _lives(pid := int(file.stem.rpartition("_")[2])):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # partly typed
    return folder


def _lives(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@get("/metrics", tags=["Service"], summary="Metrics for Prometheus", media_type=CONTENT_TYPE_LATEST)
async def metrics(state: State) -> Response[bytes]:
    found: Metrics = state.metrics
    return Response(await found.text(state.engine))
