"""Metrics of the three servers at `/metrics`, as the scraped process sees them."""

from collections.abc import Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.readiness import Readiness
from infra.index.isolation import Watch
from infra.index.transports import AsyncNodes

UP = {
    "database": ("consumers_database_up", "Whether this process can write to PostgreSQL."),
    "search": ("consumers_search_up", "Whether OpenSearch answers a search of this process."),
    "queue": ("consumers_queue_up", "Whether Redis answers this process."),
}


class ServerCollector(Collector):
    def __init__(self, readiness: Readiness, nodes: AsyncNodes, isolation: Watch) -> None:
        self._readiness, self._nodes, self._isolation = readiness, nodes, isolation

    def collect(self) -> Iterator[Metric]:
        for dependency, (name, text) in UP.items():
            yield GaugeMetricFamily(name, text, self._readiness.is_up(dependency))
        yield GaugeMetricFamily(
            "consumers_search_nodes_left_out",
            "Nodes of OpenSearch that get no requests, because they do not answer or have no cluster manager.",
            self._nodes.left_out,
        )
        if (problems := self._isolation.problems) is not None:
            yield GaugeMetricFamily(
                "consumers_search_settings_faults",
                "Settings of OpenSearch with which a node that is cut off may serve old documents.",
                len(problems),
            )
