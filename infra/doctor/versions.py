"""Checks of the versions of the three servers, and of the plugin of OpenSearch."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from infra.doctor.checks import Check, Finding, Servers

POSTGRESQL = 18
OPENSEARCH = (3, 8)
VALKEY = 8
REDIS = (7, 2)
"""The last release from which Valkey was forked, with the same commands."""
PLUGIN = "analysis-icu"

VERSION = sa.text("SELECT current_setting('server_version_num')::int / 10000")


def postgresql(servers: Servers) -> Iterator[Finding]:
    """Find another major version of PostgreSQL."""
    with servers.engine.connect() as connection:
        yield from of_postgresql(connection.execute(VERSION).scalar_one())


def of_postgresql(major: int) -> Iterator[Finding]:
    if major < POSTGRESQL:
        yield Finding(
            f"PostgreSQL has version {major}, which lacks functions that this release uses",
            f"Upgrade the server to PostgreSQL {POSTGRESQL}",
        )
    elif major > POSTGRESQL:
        yield Finding(
            f"PostgreSQL has version {major}, with which this release was not tested",
            f"Use PostgreSQL {POSTGRESQL}, or test your load with version {major} first",
            is_warning=True,
        )


def opensearch(servers: Servers) -> Iterator[Finding]:
    """Find nodes of OpenSearch with another version, or without the plugin for text in all languages."""
    answer = servers.search.nodes.info(
        metric="plugins", params={"filter_path": "nodes.*.name,nodes.*.version,nodes.*.plugins.name"}
    )
    yield from of_opensearch(answer.get("nodes", {}).values())


def of_opensearch(nodes: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    expected = ".".join(map(str, OPENSEARCH))
    versions = set()
    for node in nodes:
        name, version = node["name"], node["version"]
        versions.add(version)
        number = tuple(int(part) for part in version.split(".")[:2])
        if number < OPENSEARCH:
            yield Finding(f"Node {name} has OpenSearch {version}", f"Upgrade it to {expected} or a later 3.x")
        elif number[0] > OPENSEARCH[0]:
            yield Finding(
                f"Node {name} has OpenSearch {version}, with which this release was not tested",
                f"Use a version from {expected} to the last 3.x",
                is_warning=True,
            )
        if PLUGIN not in {plugin["name"] for plugin in node.get("plugins", ())}:
            yield Finding(
                f"Node {name} lacks the plugin {PLUGIN}, so it cannot hold the index",
                f"Run `opensearch-plugin install {PLUGIN}` on the node, then restart the node",
            )
    if len(versions) > 1:
        yield Finding(
            f"The nodes of OpenSearch have different versions: {', '.join(sorted(versions))}",
            "Finish the upgrade: a copy cannot move to a node with an earlier version",
            is_warning=True,
        )


def redis(servers: Servers) -> Iterator[Finding]:
    """Find an earlier version of Valkey or Redis."""
    yield from of_redis(servers.redis.info("server"))


def of_redis(info: Mapping[str, Any]) -> Iterator[Finding]:
    if "valkey_version" in info:
        name, version, is_supported = "Valkey", info["valkey_version"], _numbers(info["valkey_version"]) >= (VALKEY,)
    else:
        name, version, is_supported = "Redis", info["redis_version"], _numbers(info["redis_version"]) >= REDIS
    if not is_supported:
        yield Finding(
            f"{name} has version {version}, with which this release was not tested",
            f"Use Valkey {VALKEY} or later, or Redis {'.'.join(map(str, REDIS))} or later",
            is_warning=True,
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


CHECKS: tuple[Check, ...] = (postgresql, opensearch, redis)
