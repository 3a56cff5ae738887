"""The status of the index: the database's part and OpenSearch's part. OpenSearch may be unreachable."""

from datetime import datetime
from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException

from infra import logs
from infra.database import activity, epochs
from infra.index import mapping, naming
from infra.index.client import open_client
from infra.operations import counters, outbox
from infra.operations.rebuild import MISSES_LIMIT, Rebuild
from infra.operations.rebuild import latest as latest_rebuild
from infra.operations.verify import Run, known_differences, last_completed, unfinished_runs
from infra.settings import Settings

OPENSEARCH_TIMEOUT_SECONDS = 2
PARKED_ROWS = 20
PARTS = ("live", "bulk", "clock")

GENERATIONS = sa.text("""
    SELECT index_name, state, document_version, shards, live_at, keep_until, lost_at,
        mapping_digest = :digest AND shards = :shards AS is_as_declared,
        (SELECT coalesce(sum(number + 1), 0)::bigint - 1 FROM unnest(seen_seq_nos) AS number) AS position,
        (SELECT count(*) FROM (
            SELECT FROM generation_misses WHERE generation_id = g.id LIMIT :max_misses) AS missed) AS misses
    FROM generations g WHERE state <> 'dropped' ORDER BY id""")


class Generation(msgspec.Struct, kw_only=True, rename="camel"):
    """A generation of the index: an index of OpenSearch with all consumers."""

    index_name: str
    """The name of the index in OpenSearch."""
    state: str
    """The state of the generation, such as `live`."""
    document_version: int
    """The version of the documents' form."""
    shards: int
    """Primary shards of the index."""
    is_as_declared: bool
    """Whether the index was built with the mapping and settings of this code, and with INDEX_SHARDS shards."""
    live_at: datetime | None
    """Since when searches use the generation."""
    keep_until: datetime | None
    """Until when the generation is kept for a rollback."""
    lost_at: datetime | None
    """When the index was found missing or replaced by another index of the same name."""
    position: int
    """Operations seen on disk in every copy of their shard, all shards together, minus one; -1 before the first."""
    misses: int
    """Changes the generation has not taken yet; always 0 for the live generation."""
    index: str | None = None
    """`open`, `close` or `missing`; None, like the fields below, if OpenSearch did not respond."""
    documents: int | None = None
    """Including tombstones."""
    bytes: int | None = None
    """Size of the index on disk, without replicas."""
    aliases: list[str] | None = None
    """The existing aliases, of `read` and `write`."""


class Part(msgspec.Struct, kw_only=True, rename="camel"):
    """A part of the indexer: the workers of a lane, or `clock`, beat's process with the fallback poller."""

    part: str
    """A lane, or `clock`."""
    silent_seconds: float | None
    """Since the last database query of any of its processes; None without a connection."""
    processes: int
    """Processes with a database query in the last 15 seconds. An idle worker uses one of its processes, or more."""


class Status(msgspec.Struct, kw_only=True, rename="camel"):
    """The status of the index."""

    epoch: epochs.Epoch | None
    """The newest epoch of the database; None before the first change of a consumer."""
    search: str
    """`ok`, or `unreachable` with the error."""
    generations: list[Generation]
    """The generations that exist, the oldest first."""
    rebuild: Rebuild | None
    """The running rebuild, or the last."""
    parts: list[Part]
    """The parts of the indexer, and when each was last heard of."""
    waiting: list[outbox.Waiting]
    """The backlog of each lane."""
    done: list[counters.Totals]
    """The counters of each lane."""
    workers: list[counters.Worker]
    """Draining sessions of the last hour."""
    parked: list[outbox.Parked]
    """The latest parked changes, up to `PARKED_ROWS`."""
    verified: list[Run]
    """The last completed comparison on request, and the last completed round of the watch."""
    running: list[Run]
    """Unfinished runs on request."""
    differing: dict[str, int]
    """Documents known to differ from the database, by cause."""

    example: ClassVar[dict[str, Any]] = {
        "epoch": {
            "number": 2,
            "id": "4f2c1e0a-8d0c-4a52-9a53-0c1f0f2b6d1e",
            "reason": "timeline",
            "beganAt": "2024-11-01T10:00:00.000Z",
        },
        "search": "ok",
        "generations": [
            {
                "indexName": "consumers-000001",
                "state": "live",
                "documentVersion": 1,
                "shards": 1,
                "isAsDeclared": True,
                "liveAt": "2024-11-01T10:00:00.000Z",
                "keepUntil": None,
                "lostAt": None,
                "position": 1_204_311,
                "misses": 0,
                "index": "open",
                "documents": 1_000_000,
                "bytes": 521_000_000,
                "aliases": ["read", "write"],
            }
        ],
        "rebuild": Rebuild.example,
        "parts": [{"part": "live", "silentSeconds": 0.4, "processes": 1}],
        "waiting": [{"lane": "live", "waiting": 3, "refused": 0, "oldestSeconds": 0.01, "parked": 0}],
        "done": [],
        "workers": [],
        "parked": [],
        "verified": [Run.example],
        "running": [],
        "differing": {},
    }


class _CatIndex(msgspec.Struct):
    """A row of OpenSearch's `_cat/indices`."""

    index: str
    status: str
    documents: int | None = msgspec.field(default=None, name="docs.count")
    bytes: int | None = msgspec.field(default=None, name="store.size")


def read_status(connection: sa.Connection, settings: Settings) -> Status:
    """Read the whole status.

    Raises:
        DBAPIError: the database cannot be used.
    """
    status = database_status(connection, settings)
    # OpenSearch may respond slowly: end the transaction first, to hold no snapshot meanwhile.
    connection.rollback()
    add_index_status(settings, status)
    return status


def database_status(connection: sa.Connection, settings: Settings) -> Status:
    """Read the database's part of the status.

    Raises:
        DBAPIError: the database cannot be used.
    """
    values = {"digest": mapping.MAPPING_DIGEST, "shards": settings.index_shards, "max_misses": MISSES_LIMIT}
    generations = [Generation(**row) for row in connection.execute(GENERATIONS, values).mappings()]
    return Status(
        epoch=epochs.newest(connection),
        search="ok",
        generations=generations,
        rebuild=latest_rebuild(connection),
        parts=[Part(**part._asdict()) for part in activity.activities(connection, PARTS)],
        waiting=outbox.backlog(connection),
        done=counters.totals(connection),
        workers=counters.workers(connection),
        parked=outbox.parked(connection, PARKED_ROWS),
        verified=last_completed(connection),
        running=unfinished_runs(connection),
        differing=known_differences(connection),
    )


def add_index_status(settings: Settings, status: Status) -> None:
    """Add OpenSearch's part to the status, or the error if OpenSearch does not respond."""
    client = open_client(settings)
    try:
        _add_indices(client, settings.index_prefix, status.generations)
    except (OpenSearchException, msgspec.ValidationError) as error:
        status.search = f"unreachable: {logs.error_kind(error)}"
    finally:
        client.close()


def _add_indices(client: OpenSearch, prefix: str, generations: list[Generation]) -> None:
    """Add state, size and aliases of each generation's index."""
    options: dict[str, Any] = {"format": "json", "bytes": "b", "request_timeout": OPENSEARCH_TIMEOUT_SECONDS}
    columns = {"h": "index,status,docs.count,store.size", "expand_wildcards": "all"}
    cat_indices = client.cat.indices(index=f"{prefix}-*", params=options | columns)
    cat_aliases = client.cat.aliases(name=f"{prefix}-*", params=options | {"h": "alias,index"})
    indices = {index.index: index for index in msgspec.convert(cat_indices, list[_CatIndex], strict=False)}
    alias_pairs = {(row["alias"], row["index"]) for row in cat_aliases}
    for generation in generations:
        name = generation.index_name
        index = indices.get(name, _CatIndex(name, "missing"))
        generation.index, generation.documents, generation.bytes = index.status, index.documents, index.bytes
        aliases = {"read": naming.read_alias(prefix), "write": naming.write_alias(name)}
        generation.aliases = [kind for kind, alias in aliases.items() if (alias, name) in alias_pairs]
