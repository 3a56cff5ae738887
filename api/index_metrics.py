"""What `/metrics` tells of the index: what waits, and what was done, as the database knows it."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

import sqlalchemy as sa
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from infra.operations.counters import DELAY_BOUNDS, Totals, totals
from infra.operations.outbox import COUNT_LIMIT, Waiting, backlog
from infra.operations.rebuild import Rebuild, is_live_index_lost, latest
from infra.operations.verify import Run, known_differences, last_completed

SCRAPE_SECONDS = 2.0
GAUGES = {
    "waiting": ("consumers_outbox_waiting", f"Changes that may not be searchable yet, up to {COUNT_LIMIT}."),
    "oldest_seconds": ("consumers_outbox_oldest_seconds", "Age of the oldest of them."),
    "parked": ("consumers_outbox_parked", f"Changes given up, up to {COUNT_LIMIT}."),
}
COUNTERS = {
    "changes": ("consumers_indexed_changes", "Changes that became searchable."),
    "documents": ("consumers_indexed_documents", "Documents the index took."),
    "conflicts": ("consumers_index_version_conflicts", "Documents not taken, for the index held newer ones."),
    "failures": ("consumers_index_document_failures", "Documents refused for what they are, at each attempt."),
}
REBUILD = {
    "is_running": ("consumers_rebuild_running", "Whether an index is being built, or a rollback waits."),
    "documents": ("consumers_rebuild_documents", "Consumers the latest rebuild has filled in."),
    "total": ("consumers_rebuild_consumers", "Consumers there were when it began."),
    "misses": ("consumers_rebuild_misses", f"Changes that its index did not take yet, up to {COUNT_LIMIT}."),
    "is_paused": ("consumers_rebuild_paused", "Whether it rests until somebody resumes it."),
    "documents_per_second": ("consumers_rebuild_documents_per_second", "While it was filled, rests not counted."),
    "remaining_seconds": ("consumers_rebuild_remaining_seconds", "Of the filling, at that rate."),
}
LABELS = ("lane",)
EDGES = (*map(floatToGoString, DELAY_BOUNDS), "+Inf")


class Figures(NamedTuple):
    waiting: list[Waiting]
    done: list[Totals]
    rebuild: Rebuild | None
    lost: bool
    differing: dict[str, int]
    verified: list[Run]


async def figures(engine: AsyncEngine) -> Figures | None:
    """Ask the database; None if it is away, or too slow."""
    try:
        async with asyncio.timeout(SCRAPE_SECONDS), engine.connect() as connection:
            return await connection.run_sync(_figures)
    except (SQLAlchemyError, TimeoutError):
        return None


def _figures(connection: sa.Connection) -> Figures:
    return Figures(
        backlog(connection),
        totals(connection),
        latest(connection),
        is_live_index_lost(connection),
        known_differences(connection),
        last_completed(connection),
    )


class IndexCollector(Collector):
    """Shows the figures; nothing is said of the index while the database is away."""

    def __init__(self, found: Figures | None) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        found = self._found
        yield GaugeMetricFamily("consumers_database_up", "Whether the database answers.", found is not None)
        if found is None:
            return
        for field, (name, text) in GAUGES.items():
            yield _each(GaugeMetricFamily(name, text, labels=LABELS), found.waiting, field)
        for field, (name, text) in COUNTERS.items():
            yield _each(CounterMetricFamily(name, text, labels=LABELS), found.done, field)
        yield GaugeMetricFamily("consumers_index_lost", "Whether the index is gone, and reads are errors.", found.lost)
        if found.rebuild:
            yield from _rebuild(found.rebuild)
        delays = HistogramMetricFamily(
            "consumers_commit_to_searchable_seconds", "From a change to its being searchable.", labels=LABELS
        )
        for lane in found.done:
            delays.add_metric(
                [lane.lane], list(zip(EDGES, accumulate(lane.delay_buckets), strict=True)), lane.delay_seconds
            )
        yield delays
        yield from _verified(found)


def _rebuild(rebuild: Rebuild) -> Iterator[Metric]:
    for field, (name, text) in REBUILD.items():
        if (value := getattr(rebuild, field)) is not None:
            yield GaugeMetricFamily(name, text, value)
    phase = GaugeMetricFamily("consumers_rebuild_phase", "1 for the phase it is in.", labels=("phase",))
    phase.add_metric([rebuild.phase], 1)
    yield phase


def _verified(found: Figures) -> Iterator[Metric]:
    differing = GaugeMetricFamily(
        "consumers_index_differences", "Documents known to differ from the database.", labels=("cause",)
    )
    for cause, count in found.differing.items():
        differing.add_metric([cause], count)
    yield differing
    ended = GaugeMetricFamily(
        "consumers_index_verified_timestamp_seconds",
        "When the last comparison of the index with the database ended.",
        labels=("kind",),
    )
    for run in found.verified:
        if run.finished_at:
            ended.add_metric([run.kind], run.finished_at.timestamp())
    yield ended


def _each(
    family: GaugeMetricFamily | CounterMetricFamily, lanes: Iterable[Waiting | Totals], field: str
) -> GaugeMetricFamily | CounterMetricFamily:
    for lane in lanes:
        family.add_metric([lane.lane], getattr(lane, field))
    return family
