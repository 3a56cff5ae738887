"""Checks of OpenSearch's state and settings: blocks, allocation, awareness of zones, and disks."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from infra.doctor.checks import Check, Finding, Servers
from infra.index import naming

ZONE_ATTRIBUTES = ("zone", "availability_zone", "rack_id", "rack")
ALLOCATION = "cluster.routing.allocation"
WATERMARK = f"{ALLOCATION}.disk.watermark.low"
UNITS = {"b": 1} | {f"{letter}{b}": 1 << 10 * power for power, letter in enumerate("kmgtp", 1) for b in ("", "b")}
"""Bytes of each unit of sizes in OpenSearch; `g` is `gb`."""
CLOSED = "4"
"""Number of the block of a closed index."""
ROOM_FACTOR = 1.2
"""A rebuild needs room for a second copy of the index, and for merges."""


def settings(servers: Servers) -> Iterator[Finding]:
    """Find settings of the cluster against writes, new copies, or the mapping of indices."""
    yield from of_settings(_settings(servers), servers.settings.index_prefix)


def of_settings(values: Mapping[str, Any], prefix: str) -> Iterator[Finding]:
    for block in ("cluster.blocks.read_only", "cluster.blocks.read_only_allow_delete", "cluster.blocks.create_index"):
        if str(values.get(block, "false")) == "true":
            yield Finding(f"{block} is true, so changes do not become searchable", f"Set {block} to null")
    for setting, right in ((f"{ALLOCATION}.enable", "all"), ("cluster.routing.rebalance.enable", "all")):
        if (value := values.get(setting, right)) != right:
            yield Finding(
                f"{setting} is {value}, as during a restart of the cluster, so lost copies are not made again",
                f"Set {setting} to null",
            )
    creates = str(values.get("action.auto_create_index", "true"))
    if creates != "false" and f"-{prefix}" not in creates:
        yield Finding(
            f"action.auto_create_index is {creates}, so another program can create an index without a mapping under "
            "the name of an index of this service",
            f"Set action.auto_create_index to false, or to -{prefix}*,+*: in opensearch.yml, or PUT /_cluster/settings",
        )


def blocks(servers: Servers) -> Iterator[Finding]:
    """Find closed or blocked indices of this installation."""
    pattern = f"{naming.index_name(servers.settings.index_prefix, 0)[:-5]}*"
    answer = servers.search.cluster.state(
        metric="blocks", index=pattern, params={"filter_path": "blocks.indices", "ignore_unavailable": "true"}
    )
    yield from of_blocks(answer.get("blocks", {}).get("indices", {}))


def of_blocks(indices: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield the findings of blocks by index and number of the block."""
    for name, kinds in sorted(indices.items()):
        if CLOSED in kinds:
            yield Finding(f"The index {name} is closed", f"POST /{name}/_open")
            continue
        reasons = "; ".join(sorted(kind["description"] for kind in kinds.values()))
        yield Finding(
            f"The index {name} refuses writes ({reasons})",
            f"Free disk space if its disk is full; otherwise remove index.blocks.* from PUT /{name}/_settings",
        )


def awareness(servers: Servers) -> Iterator[Finding]:
    """Find copies that may be lost together, because OpenSearch does not know the zones of its nodes."""
    answer = servers.search.nodes.info(metric="_none", params={"filter_path": "nodes.*.attributes,nodes.*.roles"})
    yield from of_awareness(answer.get("nodes", {}).values(), _settings(servers))


def of_awareness(nodes: Iterable[Mapping[str, Any]], values: Mapping[str, Any]) -> Iterator[Finding]:
    data_nodes = [node.get("attributes", {}) for node in nodes if "data" in node.get("roles", ())]
    configured = values.get(f"{ALLOCATION}.awareness.attributes") or ""
    names = configured if isinstance(configured, list) else [name for name in configured.split(",") if name]
    for attribute in names:
        if lacking := sum(attribute not in node for node in data_nodes):
            yield Finding(
                f"{lacking} of {len(data_nodes)} data nodes lack node.attr.{attribute}, so they get no copies",
                f"Set node.attr.{attribute} in opensearch.yml of every data node",
            )
    zones = {name: {node[name] for node in data_nodes if name in node} for name in ZONE_ATTRIBUTES}
    for name, places in zones.items():
        if len(places) > 1 and not names:
            yield Finding(
                f"The nodes are in {len(places)} zones (node.attr.{name}), but both copies of a shard may be in one",
                f"Set {ALLOCATION}.awareness.attributes: {name}, by PUT /_cluster/settings",
            )


def disks(servers: Servers) -> Iterator[Finding]:
    """Find nodes without room: for copies, or for the second index of a rebuild."""
    stats = servers.search.nodes.stats(
        metric="fs", params={"filter_path": "nodes.*.name,nodes.*.roles,nodes.*.fs.total"}
    )
    sizes: dict[str, int] = {}
    rows: Any = servers.search.cat.shards(
        index=f"{naming.index_name(servers.settings.index_prefix, 0)[:-5]}*",
        params={"format": "json", "bytes": "b", "h": "node,store", "ignore": 404},
    )
    for row in rows if isinstance(rows, list) else ():
        sizes[row["node"]] = sizes.get(row["node"], 0) + int(row["store"] or 0)
    yield from of_disks(stats.get("nodes", {}).values(), sizes, str(_settings(servers).get(WATERMARK, "85%")))


def of_disks(nodes: Iterable[Mapping[str, Any]], sizes: Mapping[str, int], watermark: str) -> Iterator[Finding]:
    """Yield the findings of disks.

    Args:
        nodes: the answer of OpenSearch, with the bytes of the disks.
        sizes: bytes of this installation's shards by node.
        watermark: the setting `low`, above which a node gets no more copies.
    """
    for node in nodes:
        if "data" not in node["roles"]:
            continue
        total, free = node["fs"]["total"]["total_in_bytes"], node["fs"]["total"]["available_in_bytes"]
        if free < (needed := free_at(watermark, total)):
            yield Finding(
                f"Node {node['name']} has {free >> 20} MiB of free disk, less than the low watermark leaves "
                f"({needed >> 20} MiB), so it gets no copies",
                "Free disk space, add a node, or run `consumers index drop` for a former index",
            )
        elif free - needed < ROOM_FACTOR * (size := sizes.get(node["name"], 0)):
            yield Finding(
                f"Node {node['name']} has {free >> 20} MiB of free disk; a rebuild needs room for another "
                f"{size >> 20} MiB above the low watermark ({needed >> 20} MiB)",
                "Add disk space before the next rebuild, or run `consumers index drop` for a former index",
                is_warning=True,
            )


def free_at(watermark: str, total: int) -> int:
    """Return the free bytes at a watermark: a share of the disk in use (`85%`, `0.85`), or free bytes (`1gb`).

    >>> free_at("85%", 1000), free_at("0.9", 1000), free_at("1kb", 1000)
    (150, 100, 1024)
    """
    watermark = watermark.strip().lower()
    number = watermark.rstrip("%abcdefghijklmnopqrstuvwxyz ")
    unit = watermark[len(number) :].strip()
    if unit in UNITS:
        return int(float(number) * UNITS[unit])
    used = float(number) / 100 if unit == "%" else float(number)
    return round(total * (1 - used))


def _settings(servers: Servers) -> dict[str, Any]:
    """Read the settings of the cluster: defaults with the values of opensearch.yml, and changed settings."""
    answer: dict[str, Any] = servers.search.cluster.get_settings(
        params={"flat_settings": "true", "include_defaults": "true"}
    )
    return {**answer.get("defaults", {}), **answer.get("persistent", {}), **answer.get("transient", {})}


CHECKS: tuple[Check, ...] = (settings, blocks, awareness, disks)
