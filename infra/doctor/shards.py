"""Checks of the shards of the live index."""

from collections.abc import Iterator

from infra.doctor.checks import Check, Finding, Servers
from infra.index import generations

LARGEST_GIB = 50
"""A larger shard takes long to copy to another node, and its searches slow down."""


def number(servers: Servers) -> Iterator[Finding]:
    """Find a live index with another number of shards than INDEX_SHARDS."""
    with servers.engine.connect() as connection:
        live = generations.live(connection)
    setting = servers.settings.index_shards
    if live and live.shards != setting:
        yield Finding(
            f"{live.index_name} has {live.shards} shards, and INDEX_SHARDS is {setting}",
            "Run `consumers index rebuild`, or correct INDEX_SHARDS",
        )


def size(servers: Servers) -> Iterator[Finding]:
    """Find shards of the live index that are too large."""
    with servers.engine.connect() as connection:
        live = generations.live(connection)
    if live is None:
        return
    rows = servers.search.cat.shards(
        index=live.index_name, params={"format": "json", "bytes": "gb", "h": "shard,prirep,store", "ignore": 404}
    )
    sizes = [int(row["store"] or 0) for row in rows if isinstance(row, dict) and row["prirep"] == "p"]
    if max(sizes, default=0) > LARGEST_GIB:
        yield Finding(
            f"The largest shard of {live.index_name} has {max(sizes)} GiB, more than {LARGEST_GIB} GiB",
            "Raise INDEX_SHARDS for API and workers, then run `consumers index rebuild`",
        )


CHECKS: tuple[Check, ...] = (number, size)
