"""Settings of OpenSearch for nodes that are cut off from the other nodes.

A node without cluster manager must refuse reads, and must notice that it is cut off before the others go on without it:

- A node that cannot reach the cluster manager gives up after the leader checks.
- The cluster manager removes a node that it cannot reach after the follower checks. Only then can a write succeed
  without this node's copy.
- A new cluster manager can remove the one before only after its first state is published. The publication waits for the
  node that is cut off, until the timeout of publications.

The settings apply to clusters of several nodes. `docs/deploying.md` has the values.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException

from infra import logs
from infra.index.client import open_client
from infra.index.nodes import PROBATION_SECONDS
from infra.settings import Settings

log = structlog.get_logger()

CHECK_SECONDS = 60.0

BLOCK = "cluster.no_cluster_manager_block"
OLD_BLOCK = "cluster.no_master_block"
CHECKS = "cluster.fault_detection.{}_check.{}"
PUBLISH = "cluster.publish.timeout"
RECOMMENDED = {
    BLOCK: "all",
    PUBLISH: "2600ms",
    CHECKS.format("leader", "interval"): "200ms",
    CHECKS.format("leader", "timeout"): "400ms",
    CHECKS.format("leader", "retry_count"): "3",
    CHECKS.format("follower", "interval"): "200ms",
    CHECKS.format("follower", "timeout"): "600ms",
    CHECKS.format("follower", "retry_count"): "3",
}
"""The settings in opensearch.yml: a node gives up after 1.6 to 1.8 seconds, and is removed after 2.2 to 2.4 seconds.

The publication timeout is longer than the follower checks, so a new cluster manager removes the one before right after
its first publication. Otherwise another change may be published first, and wait for the timeout again.
"""
DEFAULTS = {"interval": "1s", "timeout": "10s", "retry_count": "3"}
LONGEST_SECONDS = 10.0
"""A write waits for an unreachable copy until the node is removed."""
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


class Problem(NamedTuple):
    """A setting that breaks a guarantee while a node is cut off."""

    node: str
    problem: str
    settings: tuple[str, ...]
    """Names of the settings to change."""


class Period(NamedTuple):
    """Time from the cut of a node until the checks have failed, in seconds."""

    shortest: float
    longest: float


def problems(client: OpenSearch) -> list[Problem]:
    """Return the problems of the settings of all nodes; none for a single node.

    Raises:
        OpenSearchException: OpenSearch does not answer.
    """
    cluster: dict[str, Any] = client.cluster.get_settings(params={"flat_settings": "true"})
    answer: dict[str, Any] = client.nodes.info(
        metric="settings", params={"flat_settings": "true", "filter_path": "nodes.*.name,nodes.*.settings.cluster*"}
    )
    nodes = answer.get("nodes", {}).values()
    if len(nodes) < 2:  # noqa: PLR2004 (several)
        return []
    changed = cluster.get("persistent", {}) | cluster.get("transient", {})
    return [problem for node in nodes for problem in _of_node(node["name"], node.get("settings", {}) | changed)]


def _of_node(name: str, settings: Mapping[str, str]) -> Iterator[Problem]:
    """Yield the problems of a node with these settings of its file and of the cluster."""
    block = settings.get(BLOCK, settings.get(OLD_BLOCK, "metadata_write"))
    if block != "all":
        yield Problem(name, f"the node serves reads without a cluster manager ({BLOCK} is {block})", (BLOCK,))
    leader, follower = period("leader", settings), period("follower", settings)
    names = tuple(CHECKS.format(check, part) for check in ("leader", "follower") for part in DEFAULTS)
    if leader.longest >= follower.shortest:
        yield Problem(
            name,
            f"a node that is cut off serves reads for up to {leader.longest:g} seconds, but is replaced after "
            f"{follower.shortest:g}",
            names,
        )
    if leader.longest > PROBATION_SECONDS:
        yield Problem(
            name,
            f"a node notices that it is cut off after up to {leader.longest:g} seconds, more than the "
            f"{PROBATION_SECONDS:g} seconds that the API waits before it uses a node again",
            names[: len(DEFAULTS)],
        )
    publish = _seconds(settings.get(PUBLISH, "30s"))
    if leader.longest >= publish:
        yield Problem(
            name,
            f"a node that is cut off serves reads for up to {leader.longest:g} seconds, but changes go on without it "
            f"after {publish:g} ({PUBLISH})",
            (PUBLISH, *names[: len(DEFAULTS)]),
        )
    if (longest := max(follower.longest, publish)) > LONGEST_SECONDS:
        yield Problem(
            name,
            f"changes wait up to {longest:g} seconds for a node that is cut off or hangs",
            (PUBLISH, *names[len(DEFAULTS) :]),
        )


def period(check: str, settings: Mapping[str, str]) -> Period:
    """Return how long it takes until the leader checks or the follower checks have failed.

    The longest time begins right after a successful check; the shortest time begins right before a check.

    >>> period("leader", RECOMMENDED)
    Period(shortest=1.6, longest=1.8)
    """
    values = {part: settings.get(CHECKS.format(check, part), default) for part, default in DEFAULTS.items()}
    interval, retries = _seconds(values["interval"]), int(values["retry_count"])
    shortest = retries * _seconds(values["timeout"]) + (retries - 1) * interval
    return Period(round(shortest, 3), round(shortest + interval, 3))


def _seconds(value: str) -> float:
    """Convert a time of OpenSearch, such as `500ms`, to seconds."""
    unit = value.lstrip("0123456789.")
    return float(value[: len(value) - len(unit)]) * UNITS[unit]


class Watch:
    """Checks the settings at the start of a process, and then every minute, in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.problems: list[Problem] | None = None
        """The problems at the last check; None before OpenSearch has answered."""

    def start(self) -> None:
        threading.Thread(target=self._run, name="isolation", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.check()
            time.sleep(CHECK_SECONDS)

    def check(self) -> None:
        """Read the settings, and log problems that are new."""
        try:
            with closing(open_client(self._settings)) as client:
                current = problems(client)
        except OpenSearchException as error:
            log.warning("isolation_check_postponed", reason=logs.error_kind(error))
            return
        for problem in current:
            if problem not in (self.problems or ()):
                log.error("search_node_settings", node=problem.node, problem=problem.problem, advice="consumers doctor")
        self.problems = current
