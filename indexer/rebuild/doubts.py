"""Doubts about answers of OpenSearch: a fault of an index counts only if several comparisons in a row see the fault.

A node that is cut off from the others answers with an old state until the node notices. The requests of a comparison go
to the nodes in turn, so several comparisons ask several nodes. A single node cannot be cut off from others.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opensearchpy import OpenSearch

CONFIRMATIONS = 3
"""Comparisons in a row that must see a fault, in a cluster of several nodes."""


class Doubts:
    """The indices with a fault in the last comparison, each with the number of such comparisons in a row."""

    def __init__(self, client: OpenSearch) -> None:
        self._client = client
        self._counts: dict[str, int] = {}
        self._before: dict[str, int] = {}

    @contextmanager
    def comparison(self) -> Iterator[None]:
        """Compare in this block. A comparison that fails counts neither for nor against a fault."""
        self._counts = {}
        yield
        self._before = self._counts

    def are_confirmed(self, index_name: str) -> bool:
        """Record that this comparison sees a fault of an index; return whether enough comparisons saw one.

        Raises:
            OpenSearchException: OpenSearch does not answer.
        """
        count = self._counts[index_name] = self._before.get(index_name, 0) + 1
        return count >= CONFIRMATIONS or self._is_single_node()

    def _is_single_node(self) -> bool:
        health = self._client.cluster.health(params={"filter_path": "number_of_nodes"})
        return bool(health["number_of_nodes"] == 1)
