"""Metrics of the index at `/metrics`: backlog, totals, rebuild and verification, all read from the database."""

import asyncio
import math
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

import sqlalchemy as sa
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.database import activity, epochs
from infra.operations.counters import DELAY_BOUNDS, Totals, totals
from infra.operations.outbox import COUNT_LIMIT, Waiting, backlog
from infra.operations.rebuild import Rebuild, is_live_index_lost, latest
from infra.operations.status import PARTS
from infra.operations.verify import Run, known_differences, last_completed

SCRAPE_SECONDS = 2.0
GAUGES = {
    "waiting": ("consumers_outbox_waiting", f"Changes that may not be searchable yet, up to {COUNT_LIMIT}."),
    "refused": (
        "consumers_outbox_refused",
        f"Of these, changes with a refused document that will be tried again, up to {COUNT_LIMIT}.",
    ),
    "oldest_seconds": (
        "consumers_outbox_oldest_seconds",
        "Age of the oldest change that is neither searchable nor refused.",
    ),
    "parked": ("consumers_outbox_parked", f"Parked changes: given up after repeated failures, up to {COUNT_LIMIT}."),
}
COUNTERS = {
    "changes": ("consumers_indexed_changes", "Changes that became searchable."),
    "documents": ("consumers_indexed_documents", "Documents accepted by the index."),
    "conflicts": (
        "consumers_index_version_conflicts",
        "Documents refused for an older version.",
    ),
    "failures": (
        "consumers_index_document_failures",
        "Documents refused for their content, each attempt.",
    ),
}
REBUILD = {
    "is_running": ("consumers_rebuild_running", "Whether a rebuild is running, or a rollback is pending."),
    "documents": ("consumers_rebuild_documents", "Consumers that the latest rebuild has written."),
    "total": ("consumers_rebuild_consumers", "Consumers at the start of the rebuild."),
    "misses": ("consumers_rebuild_misses", f"Changes that are missing in the new index, up to {COUNT_LIMIT}."),
    "is_paused": ("consumers_rebuild_paused", "Whether the rebuild is paused."),
    "documents_per_second": ("consumers_rebuild_documents_per_second", "Rate of the fill, without pauses."),
    "remaining_seconds": ("consumers_rebuild_remaining_seconds", "Time until the fill is complete, at that rate."),
}
LABELS = ("lane",)
EDGES = (*map(floatToGoString, DELAY_BOUNDS), "+Inf")


class Figures(NamedTuple):
    epoch: epochs.Epoch | None
    parts: list[activity.Activity]
    backlog: list[Waiting]
    totals: list[Totals]
    rebuild: Rebuild | None
    is_lost: bool
    differences: dict[str, int]
    verifications: list[Run]


async def read_figures(engine: AsyncEngine) -> Figures | None:
    """Read the figures from the database; return None if the database is down or too slow."""
    try:
        async with asyncio.timeout(SCRAPE_SECONDS), engine.connect() as connection:
            return await connection.run_sync(_figures)
    except (SQLAlchemyError, TimeoutError):
        return None


def _figures(connection: sa.Connection) -> Figures:
    return Figures(
        epochs.newest(connection),
        activity.activities(connection, PARTS),
        backlog(connection),
        totals(connection),
        latest(connection),
        is_live_index_lost(connection),
        known_differences(connection),
        last_completed(connection),
    )


class IndexCollector(Collector):
    """Collects the metrics of the index; none while the database is down."""

    def __init__(self, figures: Figures | None) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        if figures is None:
            return
        if figures.epoch:
            text = "Number of the database's epoch: rises when a server is promoted, restored, replaced or restarted."
            yield GaugeMetricFamily("consumers_database_epoch", text, figures.epoch.number)
        yield from _parts(figures.parts)
        for field, (name, text) in GAUGES.items():
            yield _by_lane(GaugeMetricFamily(name, text, labels=LABELS), figures.backlog, field)
        for field, (name, text) in COUNTERS.items():
            yield _by_lane(CounterMetricFamily(name, text, labels=LABELS), figures.totals, field)
        yield GaugeMetricFamily("consumers_index_lost", "Whether the live index is lost.", figures.is_lost)
        if figures.rebuild:
            yield from _rebuild(figures.rebuild)
        delays = HistogramMetricFamily(
            "consumers_commit_to_searchable_seconds",
            "Time from a change until it is searchable.",
            labels=LABELS,
        )
        for lane in figures.totals:
            delays.add_metric(
                [lane.lane], list(zip(EDGES, accumulate(lane.delay_buckets), strict=True)), lane.delay_seconds
            )
        yield delays
        yield from _verifications(figures)


def _parts(parts: Iterable[activity.Activity]) -> Iterator[Metric]:
    silent = GaugeMetricFamily(
        "consumers_indexer_silent_seconds",
        "Time since the last database query of any process of a part of the indexer; infinite if none is connected.",
        labels=("part",),
    )
    processes = GaugeMetricFamily(
        "consumers_indexer_processes",
        f"Processes of a part of the indexer with a database query in the last {activity.ACTIVE_SECONDS:.0f} seconds.",
        labels=("part",),
    )
    for part in parts:
        silent.add_metric([part.part], math.inf if part.silent_seconds is None else part.silent_seconds)
        processes.add_metric([part.part], part.processes)
    yield silent
    yield processes


def _rebuild(rebuild: Rebuild) -> Iterator[Metric]:
    for field, (name, text) in REBUILD.items():
        if (value := getattr(rebuild, field)) is not None:
            yield GaugeMetricFamily(name, text, value)
    phase = GaugeMetricFamily("consumers_rebuild_phase", "1 for the phase of the latest rebuild.", labels=("phase",))
    phase.add_metric([rebuild.phase], 1)
    yield phase


def _verifications(figures: Figures) -> Iterator[Metric]:
    differences = GaugeMetricFamily(
        "consumers_index_differences", "Documents known to differ from the database.", labels=("cause",)
    )
    for cause, count in figures.differences.items():
        differences.add_metric([cause], count)
    yield differences
    ended = GaugeMetricFamily(
        "consumers_index_verified_timestamp_seconds",
        "When the last comparison of the index with the database ended, in Unix seconds.",
        labels=("kind",),
    )
    for run in figures.verifications:
        if run.finished_at:
            ended.add_metric([run.kind], run.finished_at.timestamp())
    yield ended


def _by_lane(
    family: GaugeMetricFamily | CounterMetricFamily, lanes: Iterable[Waiting | Totals], field: str
) -> GaugeMetricFamily | CounterMetricFamily:
    for lane in lanes:
        family.add_metric([lane.lane], getattr(lane, field))
    return family
