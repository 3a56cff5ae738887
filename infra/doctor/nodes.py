"""Checks of the cluster of OpenSearch nodes."""

from collections.abc import Iterable, Iterator

from infra.doctor.checks import Check, Finding, Servers
from infra.index import isolation, naming

NODE_LEFT = "NODE_LEFT"
MAJORITY_NODES = 3
"""A smaller number of cluster managers has no majority without one of them."""


def isolation_settings(servers: Servers) -> Iterator[Finding]:
    """Find nodes that would serve reads after they were cut off from the other nodes."""
    for problem in isolation.problems(servers.search):
        values = ", ".join(f"{name}: {isolation.RECOMMENDED[name]}" for name in problem.settings)
        yield Finding(f"Node {problem.node}: {problem.problem}", f"Set in opensearch.yml of every node: {values}")


def cluster_managers(servers: Servers) -> Iterator[Finding]:
    """Find a cluster of several nodes that stops when a single node fails."""
    answer = servers.search.nodes.info(metric="_none", params={"filter_path": "nodes.*.roles"})
    nodes = answer.get("nodes", {}).values()
    managers = sum("cluster_manager" in node["roles"] or "master" in node["roles"] for node in nodes)
    if len(nodes) > 1 and managers < MAJORITY_NODES:
        yield Finding(
            f"{managers} of {len(nodes)} nodes may be cluster manager, so the cluster stops when one of them fails",
            f"Give the role cluster_manager to at least {MAJORITY_NODES} nodes",
        )


def unreachable_addresses(servers: Servers) -> Iterator[Finding]:
    """Find addresses in OPENSEARCH_URL that do not answer, or are not nodes of one cluster."""
    clusters: dict[str, list[str]] = {}
    for address, answer in servers.nodes():
        if isinstance(answer, str):
            yield Finding(f"Node {address} does not answer ({answer})", "Start the node, or correct OPENSEARCH_URL")
        else:
            clusters.setdefault(answer["cluster_uuid"], []).append(address)
    if len(clusters) > 1:
        groups = "; ".join(", ".join(addresses) for addresses in clusters.values())
        yield Finding(f"OPENSEARCH_URL names nodes of {len(clusters)} clusters: {groups}", "Name one cluster's nodes")


def copies(servers: Servers) -> Iterator[Finding]:
    """Find indices without a second copy on another node, and copies that are not assigned."""
    search = servers.search
    nodes = search.cluster.health(params={"filter_path": "number_of_data_nodes"})["number_of_data_nodes"]
    pattern = f"{naming.index_name(servers.settings.index_prefix, 0)[:-5]}*"
    rows: Iterable[dict[str, str]] = search.cat.shards(
        index=pattern, params={"format": "json", "h": "index,shard,prirep,state,unassigned.reason"}
    )
    by_index: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_index.setdefault(row["index"], []).append(row)
    for index, shards in sorted(by_index.items()):
        unassigned = [shard for shard in shards if shard["state"] == "UNASSIGNED"]
        if unassigned:
            reason = unassigned[0].get("unassigned.reason") or "unknown"
            yield Finding(
                f"{len(unassigned)} of {len(shards)} shard copies of {index} are not assigned to a node ({reason})",
                "Start the node. After a minute, OpenSearch makes the copy on another node, if there is one"
                if reason == NODE_LEFT
                else f"See GET _cluster/allocation/explain, and set INDEX_REPLICAS below the number of nodes ({nodes})",
            )
        if nodes > 1 and not any(shard["prirep"] == "r" for shard in shards):
            yield Finding(
                f"{index} has no replica, so reads stop when its node fails",
                "Set INDEX_REPLICAS=1 or more, then restart beat",
            )


CHECKS: tuple[Check, ...] = (unreachable_addresses, cluster_managers, isolation_settings, copies)
