"""Metrics of the OpenSearch nodes at `/metrics`, as the scraped process sees them."""

from collections.abc import Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from infra.index.isolation import Watch
from infra.index.transports import AsyncNodes


class ClusterCollector(Collector):
    def __init__(self, nodes: AsyncNodes, isolation: Watch) -> None:
        self._nodes, self._isolation = nodes, isolation

    def collect(self) -> Iterator[Metric]:
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
