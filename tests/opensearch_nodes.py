"""A cluster of OpenSearch nodes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.local import artifacts, ports
from infra.local.opensearch import OpenSearch
from infra.local.server import wait_ready
from infra.local.servers import THROWAWAY


class Node(OpenSearch):
    """A node that forms a cluster with the others."""

    def __init__(
        self, folder: Path, number: int, transports: Sequence[int], published: Sequence[int], *, heap: str
    ) -> None:
        """Configure a node.

        Args:
            folder: for data and log.
            number: position of the node.
            transports: for each node the port that the node listens on.
            published: for each node the port that the other nodes connect to.
            heap: size of Java's heap.
        """
        (folder / "log").mkdir(parents=True)
        super().__init__(
            folder,
            artifacts.opensearch_home(),
            heap=heap,
            java_options=THROWAWAY.java_options,
            settings_of_profile=THROWAWAY.opensearch_settings,
        )
        self.number, self._transports, self._published = number, transports, published

    def settings(self) -> dict[str, Any]:
        alone = super().settings()
        del alone["discovery.type"]
        return alone | {
            "node.name": f"node{self.number}",
            "transport.port": self._transports[self.number],
            "transport.publish_port": self._published[self.number],
            "discovery.seed_hosts": [f"127.0.0.1:{port}" for port in self._published],
            "cluster.initial_cluster_manager_nodes": [f"node{each}" for each in range(len(self._transports))],
        }


@contextmanager
def started_nodes(
    folder: Path, transports: Sequence[int], published: Sequence[int] | None = None, *, heap: str = THROWAWAY.heap
) -> Iterator[list[Node]]:
    """Start a node for each port, and stop the nodes at the end."""
    nodes = [
        Node(folder / str(number), number, transports, published or transports, heap=heap)
        for number in range(len(transports))
    ]
    try:
        for node in nodes:
            node.spawn()
        wait_ready(nodes)
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def pick_ports(number: int) -> list[int]:
    return [ports.pick() for _ in range(number)]
