"""What Prometheus reads at `/metrics`.

Several API processes serve one port, and a scrape reaches any of them. So all count into files of one folder, which
whoever is asked adds up (prometheus-client's multiprocess mode). The folder is named after the parent process, hence
the same for all workers of a server, also for one that takes a dead one's place, and new with every start.
No label holds anything of a tenant's; routes are templates.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from litestar import Response, get
from litestar.datastructures import State
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LANES = ("live", "bulk")
MOST = 100_000
"""Waiting rows are counted up to here: a scrape must stay cheap when there are most of them."""
SCRAPE_SECONDS = 2.0

# The oldest of a lane is found by one step an environment, however many rows wait.
OUTBOX = sa.text("""
    WITH RECURSIVE heads AS (
        (SELECT lane, environment_id, created_at FROM outbox WHERE parked_at IS NULL
         ORDER BY lane, environment_id, seq LIMIT 1)
        UNION ALL
        SELECT next.* FROM heads h CROSS JOIN LATERAL (
            SELECT lane, environment_id, created_at FROM outbox o
            WHERE parked_at IS NULL AND (o.lane, o.environment_id) > (h.lane, h.environment_id)
            ORDER BY lane, environment_id, seq LIMIT 1) next)
    SELECT l.lane,
        (SELECT count(*) FROM (
            SELECT FROM outbox o WHERE o.lane = l.lane AND parked_at IS NULL LIMIT :most) AS waiting),
        (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(h.created_at)), 0)::float8
         FROM heads h WHERE h.lane = l.lane) AS age,
        (SELECT count(*) FROM (
            SELECT FROM outbox o WHERE o.lane = l.lane AND parked_at IS NOT NULL LIMIT :most) AS parked) AS parked
    FROM unnest(CAST(:lanes AS text[])) AS l (lane)""")


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
        everything.register(_Outbox(await _outbox(engine)))
        return generate_latest(everything)


class _Outbox(Collector):
    """What waits to be indexed; nothing is said of it while the database is away."""

    def __init__(self, lanes: list[tuple[str, int, float, int]] | None) -> None:
        self._lanes = lanes

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("consumers_database_up", "Whether the database answers.", self._lanes is not None)
        if self._lanes is None:
            return
        waiting = GaugeMetricFamily(
            "consumers_outbox_waiting", f"Changes that may not be searchable yet, up to {MOST}.", labels=["lane"]
        )
        oldest = GaugeMetricFamily("consumers_outbox_oldest_seconds", "Age of the oldest of them.", labels=["lane"])
        parked = GaugeMetricFamily("consumers_outbox_parked", f"Changes given up, up to {MOST}.", labels=["lane"])
        for lane, rows, age, given_up in self._lanes:
            waiting.add_metric([lane], rows)
            oldest.add_metric([lane], age)
            parked.add_metric([lane], given_up)
        yield from (waiting, oldest, parked)


async def _outbox(engine: AsyncEngine) -> list[tuple[str, int, float, int]] | None:
    try:
        async with asyncio.timeout(SCRAPE_SECONDS), engine.connect() as connection:
            rows = await connection.execute(OUTBOX, {"lanes": list(LANES), "most": MOST})
            return [(row[0], row[1], row[2], row[3]) for row in rows]
    except (SQLAlchemyError, TimeoutError):
        return None


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
