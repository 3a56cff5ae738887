"""The nodes of OpenSearch: which node gets a request, and which nodes get none.

- Requests go to the nodes in turn. If a node does not answer in time, closes the connection, or has no cluster manager,
  the request goes to the next node. Writes may be repeated, because each has a version.
- Such a node is probed. Only a failed probe takes a node out of use, so a slow search cannot. The node is used again
  after a successful probe.
- During a long request of the indexer all nodes are probed. The request leaves a node that a probe takes out of use.
- While no node is in use, requests fail at once.

A node that was frozen or cut off serves its old documents until it notices that the cluster went on without it:

- The node notices within `PROBATION_SECONDS`, with the settings in `docs/deploying.md`. So the API probes all nodes
  every second, and uses a node again only after the node answered all probes for this time.
- A read that must contain a write is confirmed: after the answer, another node asks the cluster manager whether the
  answering node belongs to the cluster. Until the cluster manager removes a node, no write succeeds without its copy.
  While the cluster manager does not answer, the views of all other nodes confirm the read.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import structlog
from opensearchpy import Transport
from opensearchpy.exceptions import ConnectionError as NoAnswer
from opensearchpy.exceptions import ConnectionTimeout, TransportError

log = structlog.get_logger()

PROBE_SECONDS = 1.0
"""Timeout of a probe, and time between two probes of a node."""
PROBATION_SECONDS = 4.0
NO_MANAGER = frozenset({"cluster_block_exception", "cluster_manager_not_discovered_exception"})
"""Types of errors of a node without cluster manager."""
SERVICE_UNAVAILABLE = 503
GATEWAY_ERRORS = frozenset({502, SERVICE_UNAVAILABLE, 504})
REPEATABLE = frozenset({"_bulk", "_count", "_msearch", "_refresh", "_search"})
"""Ends of paths of requests that may be repeated although the first attempt may have succeeded."""
AnyTransport = TypeVar("AnyTransport", bound=Transport)


class View(msgspec.Struct, frozen=True):
    """The cluster as a node sees it."""

    version: int = 0
    """Rises with each change of the cluster. A node that is cut off stays behind."""
    cluster_manager_node: str | None = None
    nodes: dict[str, Any] = {}
    """By id of the node."""


class Node(Generic[AnyTransport]):
    """A node, and whether requests use it."""

    def __init__(self, address: str, transport: AnyTransport, prober: AnyTransport) -> None:
        self.address = address
        self.transport = transport
        self.prober = prober
        """Has a connection of its own, because all connections of `transport` may be in use."""
        self.in_use = True
        self.id: str | None = None
        """None: not known yet."""
        self.view: View | None = None
        """None: the last probe failed."""
        self.is_answering = True
        self.probed_at = 0.0
        self._healthy_since: float | None = None

    def record_probe(self, *, healthy: bool, probation_seconds: float) -> None:
        """Take the node out of use, or into use after `probation_seconds` without a failed probe."""
        now = time.monotonic()
        if not healthy:
            self._healthy_since = None
        elif self._healthy_since is None:
            self._healthy_since = now
        if self.in_use and not healthy:
            log.warning("search_node_left_out", node=self.address)
            self.in_use = False
        elif not self.in_use and self._healthy_since is not None and now - self._healthy_since >= probation_seconds:
            log.warning("search_node_used_again", node=self.address)
            self.in_use = True


class Nodes(Generic[AnyTransport]):
    """The nodes of a client."""

    def __init__(self, nodes: Sequence[Node[AnyTransport]], *, timeout: float, attempt_seconds: float) -> None:
        """Prepare the nodes.

        Args:
            nodes: all nodes.
            timeout: of a request without a timeout of its own, for all attempts together.
            attempt_seconds: timeout of an attempt. The last node gets the remaining time.
        """
        self.all = nodes
        self._timeout, self._attempt_seconds = timeout, attempt_seconds
        self._turns = itertools.count()

    def attempts(self, timeout: float | None) -> Iterator[tuple[Node[AnyTransport], float]]:
        """Yield the nodes to try, each with its timeout.

        Raises:
            NoAnswer: no node is in use.
        """
        ends_at = time.monotonic() + (timeout or self._timeout)
        turn = next(self._turns) % len(self.all)
        untried = [*self.all[turn:], *self.all[:turn]]
        is_first = True
        # A node may be taken out of use during the attempt before.
        while untried := [node for node in untried if node.in_use]:
            node, seconds = untried.pop(0), ends_at - time.monotonic()
            if seconds > 0 or is_first:
                is_last = not any(each.in_use for each in untried)
                # A client takes zero for no limit.
                yield node, max(0.001, seconds if is_last else min(seconds, self._attempt_seconds))
            is_first = False
        if is_first:
            raise NoAnswer("N/A", "no node answers", None)

    def record_probe(self, node: Node[AnyTransport], *, healthy: bool, probation_seconds: float = 0) -> None:
        """Record a probe. Without any node in use, a healthy node is used at once."""
        is_needed = not any(each.in_use for each in self.all)
        node.record_probe(healthy=healthy, probation_seconds=0 if is_needed else probation_seconds)

    def belongs_to_cluster(self, node: Node[AnyTransport]) -> bool:
        """Whether a node has a cluster manager, and is part of the cluster in the newest of all views.

        A node whose view may not be read belongs to the cluster.
        """
        views = [each.view for each in self.all if each.view is not None and each.view.cluster_manager_node]
        if node.view is None:
            return node.is_answering
        if not node.view.cluster_manager_node:
            return False
        return node.id in max(views, key=lambda view: view.version).nodes


def is_in_all_views(node_id: str | None, views: Mapping[str | None, View | None]) -> bool:
    """Whether the views of other nodes show that no write succeeded without the copy of a node.

    The cluster manager applies its decision to remove a node as the last one: every other node has applied the removal
    before, or has not answered for the publication timeout. Before this timeout ends, a node that does not reach the
    cluster manager has none in its view (`isolation.py`). So the node still belongs to the cluster if each node but
    the cluster manager has a cluster manager and lists the node.

    Args:
        node_id: of the node; None if unknown.
        views: by id of the node, read after the answer to confirm; None for a node that did not answer.
    """
    answered = {each for each, view in views.items() if view is not None} | {node_id}
    return len(answered) > 1 and all(
        view is None
        or (
            view.cluster_manager_node is not None
            and node_id in view.nodes
            and view.nodes.keys() - {view.cluster_manager_node} <= answered
        )
        for view in views.values()
    )


def is_node_at_fault(error: TransportError) -> bool:
    """Whether a failed request makes a node suspect, and not the request or the index."""
    if isinstance(error, NoAnswer):
        return True
    return error.status_code == SERVICE_UNAVAILABLE and error.error in NO_MANAGER


def is_unavailable(error: TransportError) -> bool:
    """Whether a search failed because no node has a copy that can be searched, and not because of the search."""
    if isinstance(error, NoAnswer) or error.status_code in GATEWAY_ERRORS:
        return True
    # The last copy that OpenSearch tried was at a node that left the cluster.
    return "node_disconnected_exception" in str(error.info)


def is_answer(error: TransportError) -> bool:
    """Whether a probe got an answer that says nothing against the node, such as a missing right."""
    return not isinstance(error, NoAnswer) and error.status_code not in GATEWAY_ERRORS


def may_repeat(error: TransportError, method: str, url: str) -> bool:
    """Whether another node may answer the request."""
    if isinstance(error, NoAnswer) and not isinstance(error, ConnectionTimeout):
        return True
    is_repeatable = method in {"GET", "HEAD"} or url.rpartition("/")[2] in REPEATABLE
    return is_repeatable and (isinstance(error, ConnectionTimeout) or error.status_code in GATEWAY_ERRORS)


def separate_timeout(params: Mapping[str, Any] | None, timeout: float | None) -> tuple[dict[str, Any], float | None]:
    """Return the parameters of a request without its timeout, and the timeout."""
    own = dict(params or {})
    return own, own.pop("request_timeout", None) or timeout


OF_EVERY_CONNECTION = frozenset({"ssl_context", "http_auth", "connection_class"})
"""The options of a client that its probes need as well."""


def make_nodes(
    kind: Callable[..., AnyTransport], hosts: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> list[Node[AnyTransport]]:
    once: dict[str, Any] = {"max_retries": 0, "retry_on_status": ()}
    probing = {name: option for name, option in options.items() if name in OF_EVERY_CONNECTION} | once
    return [
        Node(
            f"{host['host']}:{host.get('port', '')}",
            kind([dict(host)], **options, **once),
            kind([dict(host)], **probing, timeout=PROBE_SECONDS, pool_maxsize=1),
        )
        for host in hosts
    ]
