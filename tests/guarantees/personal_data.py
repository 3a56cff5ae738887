"""A person with unusual data, and a search for this data wherever the service or its servers may keep any of it."""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import redis
from psycopg.sql import SQL, Identifier

from infra.local.servers import LocalServers
from tests.service import Database, Service
from tests.waiting import wait_until

EMAIL, NAME, PHONE = "Zofka.Quibblewick@vexmoor.example", "Žofka Quïbblewick-Vexmoor", "+442079460837"
PERSON: dict[str, Any] = {
    "email": EMAIL,
    "fullName": NAME,
    "phone": PHONE,
    "externalId": "vexmoor-0837",
    "metadata": {"nickname": "quibbly vexmoor"},
}
# The name and the address as sent and as folded, and the phone number with or without prefix, in both directions.
TRACES = re.compile("quibblewick|quïbblewick|vexmoor|žofka|zofka|2079460837|7380649702".encode(), re.IGNORECASE)


class Place(NamedTuple):
    """Where a trace of the person was found."""

    kind: str
    name: str


def places(service: Service, servers: LocalServers) -> set[Place]:
    """Return every place with a trace of the person."""
    return {
        place
        for place, content in _contents(service, servers)
        if TRACES.search(content) or TRACES.search(_decompressed(content))
    }


def expunge(database: Database) -> None:
    """Remove deleted documents from the files of the index, as docs/personal-data.md says."""
    index, indices = f"{database.settings.index_prefix}-0*", database.search.indices
    indices.put_settings(index=index, body={"index.merge.policy.expunge_deletes_allowed": 0})
    indices.flush(index=index, params={"force": "true"})
    wait_until(lambda: not _keeps_history(database, index), timeout=60, what="the end of the history", interval=0.5)
    indices.forcemerge(index=index, params={"only_expunge_deletes": "true"})
    indices.flush(index=index, params={"force": "true"})
    indices.refresh(index=index)


def _keeps_history(database: Database, index: str) -> bool:
    """Return whether a shard keeps deleted documents for replicas; OpenSearch decides anew every 30 seconds."""
    stats = database.search.indices.stats(index=index, metric="docs", params={"level": "shards"})
    return any(
        lease["retaining_seq_no"] <= shard["seq_no"]["max_seq_no"]
        for of_index in stats["indices"].values()
        for shards in of_index["shards"].values()
        for shard in shards
        for lease in shard["retention_leases"]["leases"]
    )


def _contents(service: Service, servers: LocalServers) -> Iterator[tuple[Place, bytes]]:
    yield from _rows(service.database.settings.database_url)
    yield from _keys(service.database.settings.redis_url)
    for name in service.COMMANDS:
        yield Place("log", name), service.log(name).encode()
    for server in servers.running.values():
        yield Place("log", server.log.name), server.log.read_bytes()
    yield from _files(servers.running["opensearch_url"].data)


def _rows(database_url: str) -> Iterator[tuple[Place, bytes]]:
    """Yield every value of every table in the catalogue, and of the catalogue itself with the planner's statistics."""
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("""
            SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname NOT IN ('information_schema', 'pg_toast') AND c.relkind IN ('r', 'm', 'p')
            ORDER BY 1""").fetchall()
        for (table,) in tables:
            for row in connection.execute(SQL("SELECT * FROM {}").format(Identifier(table))):
                for value in row:
                    yield Place("table", table), value if isinstance(value, bytes) else str(value).encode()


def _keys(redis_url: str) -> Iterator[tuple[Place, bytes]]:
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter():
            yield Place("Redis", key.decode()), key + (client.dump(key) or b"")


def _files(folder: Path) -> Iterator[tuple[Place, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield Place("index", path.suffix), path.read_bytes()


def _decompressed(content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return b""
