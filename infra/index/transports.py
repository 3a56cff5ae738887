"""Transports of the clients of OpenSearch: send a request to the nodes in turn, and probe the nodes (`nodes.py`)."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
from opensearchpy import AsyncTransport, Transport
from opensearchpy.exceptions import ConnectionError as NoAnswer
from opensearchpy.exceptions import ConnectionTimeout, TransportError

from infra.index.nodes import (
    PROBATION_SECONDS,
    PROBE_SECONDS,
    Node,
    Nodes,
    View,
    is_answer,
    is_in_all_views,
    is_node_at_fault,
    is_unavailable,
    make_nodes,
    may_repeat,
    separate_timeout,
)

VIEW = "/_cluster/state/version,cluster_manager_node,nodes"
VIEW_PARAMETERS = {"local": "true", "filter_path": "version,cluster_manager_node,nodes.*.name"}
LOCAL_NODE = "/_nodes/_local"
MEMBERS = "/_cluster/state/nodes"
MEMBERS_PARAMETERS = {"filter_path": "nodes.*.name", "cluster_manager_timeout": "500ms"}
CONFIRMATION_SECONDS = 0.5
"""Timeout of the questions that confirm a read."""
PATIENCE_SECONDS = 1.0
"""A longer request of a synchronous client has the nodes probed. Most requests take less time."""
LOOK_SECONDS = 0.1
"""Time between two looks at the result of the probes."""
RETURN_SECONDS = 0.2
"""Time between two probes of a node while no node is in use: reads fail until a probe succeeds."""
ELECTION_SECONDS = 8.0
"""An election takes less time, with the opening of the shards."""
SUCCESS_SECONDS = 2.5
"""Without any successful search for this long, searches that time out are not slow, but wait for a copy."""
CONFIRMED = "confirmed"
"""Parameter of a request whose answer must come from a node that belongs to the cluster."""


class SyncNodes:
    """The transport of a synchronous client.

    Nodes are probed in threads: during long requests, after failures, and while out of use.
    """

    def __init__(
        self, hosts: Sequence[Mapping[str, Any]], *, timeout: float, attempt_seconds: float, **options: Any
    ) -> None:
        nodes = make_nodes(Transport, hosts, options)
        self._nodes = Nodes(nodes, timeout=timeout, attempt_seconds=attempt_seconds)
        self.serializer = nodes[0].transport.serializer

    def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        timeout: float | None = None,
        ignore: Any = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request to the nodes in turn, until a node answers."""
        own, timeout = separate_timeout(params, timeout)
        self._probe_left_out()
        failure: TransportError | None = None
        for node, seconds in self._nodes.attempts(timeout):
            try:
                send = partial(node.transport.perform_request, method, url, dict(own), body, seconds, ignore, headers)
                return self._answer(node, send) if len(self._nodes.all) > 1 else send()
            except TransportError as error:
                failure = error
                if is_node_at_fault(error):
                    self._probe_soon(node)
                if not may_repeat(error, method, url):
                    raise
        assert failure
        raise failure

    def close(self) -> None:
        for node in self._nodes.all:
            node.transport.close()
            node.prober.close()

    def _answer(self, node: Node[Transport], send: Callable[[], Any]) -> Any:
        """Send a request in a thread, and wait for the answer until a probe takes the node, but not all, out of use.

        Raises:
            ConnectionTimeout: the node is out of use, and another node is in use.
            TransportError: the request failed.
        """
        answer: Future[Any] = Future()

        def run() -> None:
            try:
                answer.set_result(send())
            except BaseException as error:  # noqa: BLE001 (belongs to the waiting thread)
                answer.set_exception(error)

        threading.Thread(target=run, name="request", daemon=True).start()
        if wait([answer], PATIENCE_SECONDS).done:
            return answer.result()
        while not wait([answer], LOOK_SECONDS).done:
            if not node.in_use and any(each.in_use for each in self._nodes.all):
                raise ConnectionTimeout("TIMEOUT", f"{node.address} is out of use", None)
            for each in self._nodes.all:
                self._probe_soon(each)
        return answer.result()

    def _probe_left_out(self) -> None:
        """Probe the nodes out of use, from time to time; without any other node at once, and wait for the results."""
        left_out = [node for node in self._nodes.all if not node.in_use]
        if len(left_out) < len(self._nodes.all):
            for node in left_out:
                self._probe_soon(node)
            return
        probes = [threading.Thread(target=self._probe, args=[node], name="probe", daemon=True) for node in left_out]
        for probe in probes:
            probe.start()
        # A node that hangs must not delay the use of a node that answers.
        while any(probe.is_alive() for probe in probes) and not any(node.in_use for node in left_out):
            time.sleep(LOOK_SECONDS)

    def _probe_soon(self, node: Node[Transport]) -> None:
        if time.monotonic() - node.probed_at >= PROBE_SECONDS:
            node.probed_at = time.monotonic()
            threading.Thread(target=self._probe, args=[node], name="probe", daemon=True).start()

    def _probe(self, node: Node[Transport]) -> None:
        try:
            answer = node.prober.perform_request("GET", VIEW, dict(VIEW_PARAMETERS))
            healthy = bool(answer.get("cluster_manager_node"))
        except TransportError as error:
            healthy = is_answer(error)
        self._nodes.record_probe(node, healthy=healthy)


class AsyncNodes:
    """The transport of an asynchronous client. Several nodes are probed every second, a single node after failures."""

    def __init__(
        self, hosts: Sequence[Mapping[str, Any]], *, timeout: float, attempt_seconds: float, **options: Any
    ) -> None:
        nodes = make_nodes(AsyncTransport, hosts, options)
        self._nodes = Nodes(nodes, timeout=timeout, attempt_seconds=attempt_seconds)
        self.serializer = nodes[0].transport.serializer
        self._suspicions = {node: asyncio.Event() for node in nodes}
        """Set by a failed request: a reason to probe the node at once."""
        self._probes: list[asyncio.Task[None]] = []
        self._limits: dict[Node[AsyncTransport], set[asyncio.Timeout]] = {node: set() for node in nodes}
        """The running requests at each node."""
        self._searched_at = 0.0
        """When the last search succeeded."""

    async def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109 (a parameter of opensearch-py)
        ignore: Any = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request to the nodes in turn, until a node answers.

        With the parameter `CONFIRMED`, the answer is from a node that belongs to the cluster after the answer.
        """
        if not self._probes:
            self._probes = [asyncio.create_task(self._probe_regularly(node)) for node in self._nodes.all]
        own, timeout = separate_timeout(params, timeout)
        is_confirmed = own.pop(CONFIRMED, False) and len(self._nodes.all) > 1
        failure: TransportError | None = None
        for node, seconds in self._nodes.attempts(timeout):
            try:
                async with self._until_left_out(node):
                    answer = await node.transport.perform_request(
                        method, url, dict(own), body, seconds, ignore, headers
                    )
                    if is_confirmed:
                        await self._confirm(node)
            except TransportError as error:
                failure = error
                if is_node_at_fault(error):
                    self._suspicions[node].set()
                if not may_repeat(error, method, url):
                    raise
            else:
                if url.endswith("/_search"):
                    self._searched_at = time.monotonic()
                return answer
        assert failure
        raise failure

    def repeats_until(self, error: TransportError) -> float:
        """Return until when a failed search should be repeated, on the monotonic clock; 0 for a search that should not.

        The nodes may elect a cluster manager, or open the shards. A search that fails for longer has another reason,
        and so has a search without any node that answers probes.
        """
        if is_unavailable(error) and any(node.view for node in self._nodes.all):
            return self._searched_at + ELECTION_SECONDS
        return 0.0

    @property
    def searches_succeed(self) -> bool:
        """Whether a search succeeded just now. The check of the readiness searches every second."""
        return time.monotonic() - self._searched_at < SUCCESS_SECONDS

    async def close(self) -> None:
        for probes in self._probes:
            probes.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
        for node in self._nodes.all:
            await node.transport.close()
            await node.prober.close()

    @property
    def all(self) -> Sequence[Node[AsyncTransport]]:
        return self._nodes.all

    @property
    def left_out(self) -> int:
        """Number of nodes out of use."""
        return sum(not node.in_use for node in self._nodes.all)

    @asynccontextmanager
    async def _until_left_out(self, node: Node[AsyncTransport]) -> AsyncIterator[None]:
        """End a request at a node that is taken out of use, while another node is in use.

        Raises:
            ConnectionTimeout: the request was ended.
        """
        limit = asyncio.timeout(None)
        self._limits[node].add(limit)
        try:
            async with limit:
                yield
        except TimeoutError:
            raise ConnectionTimeout("TIMEOUT", f"{node.address} is out of use", None) from None
        finally:
            self._limits[node].discard(limit)

    def _end_requests(self) -> None:
        """End the requests at nodes out of use, if another node is in use."""
        if self.left_out == len(self._nodes.all):
            return
        for node, limits in self._limits.items():
            while limits and not node.in_use:
                limits.pop().reschedule(0)

    async def _confirm(self, node: Node[AsyncTransport]) -> None:
        """Ask the cluster manager whether a node belongs to the cluster, through another node if one is in use.

        While the cluster manager does not answer, the views of all other nodes decide.

        Raises:
            NoAnswer: the node does not belong to the cluster, or too few nodes answer.
            AuthorizationException: the user lacks the right to read the members.
        """
        if node.id is None:
            await self._probe(node)
        others = [each for each in self._nodes.all if each.in_use and each is not node]
        for other in others or [node]:
            with suppress(NoAnswer):
                if node.id in (await _ask(other, MEMBERS, MEMBERS_PARAMETERS)).nodes:
                    return
                break
        else:
            views = await asyncio.gather(*(_view(other) for other in others))
            if is_in_all_views(node.id, dict(zip((other.id for other in others), views, strict=True))):
                return
        raise NoAnswer("N/A", f"{node.address} does not belong to the cluster", None)

    async def _probe_regularly(self, node: Node[AsyncTransport]) -> None:
        suspicion, several = self._suspicions[node], len(self._nodes.all) > 1
        while True:
            if several or suspicion.is_set() or not node.in_use:
                suspicion.clear()
                await self._probe(node)
                healthy = self._nodes.belongs_to_cluster(node)
                self._nodes.record_probe(node, healthy=healthy, probation_seconds=PROBATION_SECONDS)
                self._end_requests()
            is_any_in_use = self.left_out < len(self._nodes.all)
            with suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS if is_any_in_use else RETURN_SECONDS):
                    await suspicion.wait()

    async def _probe(self, node: Node[AsyncTransport]) -> None:
        """Read the view of a node, and its id."""
        try:
            if node.id is None:
                local = await node.prober.perform_request("GET", LOCAL_NODE, {"filter_path": "nodes.*.name"})
                node.id = next(iter(local["nodes"]))
            answer = await node.prober.perform_request("GET", VIEW, dict(VIEW_PARAMETERS))
            node.view, node.is_answering = msgspec.convert(answer, View), True
        except TransportError as error:
            # After a restart the node may have another id.
            node.id = node.view = None
            node.is_answering = is_answer(error)


async def _ask(node: Node[AsyncTransport], url: str, parameters: Mapping[str, str]) -> View:
    """Read a part of the state of the cluster through a node, as a step of a confirmation."""
    answer = await node.transport.perform_request("GET", url, dict(parameters), timeout=CONFIRMATION_SECONDS)
    return msgspec.json.decode(answer, type=View)


async def _view(node: Node[AsyncTransport]) -> View | None:
    """Read the view of a node, as a step of a confirmation; None without an answer."""
    with suppress(TransportError):
        return await _ask(node, VIEW, VIEW_PARAMETERS)
    return None
