"""How the index stands, as the database and OpenSearch know it; the latter may be away."""

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException

from infra import logs
from infra.database import activity
from infra.index import mapping, naming
from infra.index.client import open_client
from infra.operations import counters, outbox, verify
from infra.operations import rebuild as rebuilds
from infra.settings import Settings

SEARCH_SECONDS = 2
PARKED = 20
PARTS = ("live", "bulk", "clock")

GENERATIONS = sa.text("""
    SELECT index_name, state, document_version, mapping_digest = :digest AS is_as_declared, live_at, keep_until,
        lost_at, seen_seq_no AS position, (SELECT count(*) FROM (
            SELECT FROM generation_misses WHERE generation_id = g.id LIMIT :most) AS missed) AS misses
    FROM generations g WHERE state <> 'dropped' ORDER BY id""")


class Generation(msgspec.Struct, kw_only=True, rename="camel"):
    index_name: str
    state: str
    document_version: int
    is_as_declared: bool
    """Whether it was built with this code's mapping and settings."""
    live_at: datetime | None
    keep_until: datetime | None
    lost_at: datetime | None
    """When its index was found gone, or another in its place."""
    position: int
    """The number of its last operation that was seen on the disks of all its copies; -1 if none was yet."""
    misses: int
    """Changes it did not take yet; the live one has none."""
    index: str | None = None
    """`open`, `close` or `missing`; None, like what follows, if OpenSearch does not tell."""
    documents: int | None = None
    """Tombstones too."""
    bytes: int | None = None
    aliases: list[str] | None = None
    """Of `read` and `write`, those that it has."""


class Part(msgspec.Struct, kw_only=True, rename="camel"):
    """A part of the indexer: the workers of a lane, or beat's process, which drains where they are silent."""

    part: str
    silent_seconds: float | None
    """Since it asked the database anything; None if it is not connected."""


class Status(msgspec.Struct, kw_only=True, rename="camel"):
    search: str
    """`ok`, or why nothing could be learned of it."""
    generations: list[Generation]
    rebuild: rebuilds.Rebuild | None
    """The running one, or the last."""
    parts: list[Part]
    waiting: list[outbox.Waiting]
    done: list[counters.Totals]
    workers: list[counters.Worker]
    parked: list[outbox.Parked]
    """The latest."""
    verified: list[verify.Run]
    """The last comparison that was asked for and is over, and the last round of the one that goes on all the time."""
    running: list[verify.Run]
    """Comparisons and reindexes that were asked for and are not over."""
    differing: dict[str, int]
    """Documents known to differ from the database, by cause."""


class _Index(msgspec.Struct):
    index: str
    status: str
    documents: int | None = msgspec.field(default=None, name="docs.count")
    bytes: int | None = msgspec.field(default=None, name="store.size")


def read(connection: sa.Connection, settings: Settings) -> Status:
    """Everything there is to know.

    Raises:
        DBAPIError: the database is away.
    """
    status = known(connection)
    # OpenSearch may take its time; nothing is held meanwhile.
    connection.rollback()
    look(settings, status)
    return status


def known(connection: sa.Connection) -> Status:
    """What the database knows.

    Raises:
        DBAPIError: it is away.
    """
    values = {"digest": mapping.MAPPING_DIGEST, "most": rebuilds.MOST}
    rows = connection.execute(GENERATIONS, values).mappings()
    generations = [Generation(**row) for row in rows]
    return Status(
        search="ok",
        generations=generations,
        rebuild=rebuilds.latest(connection),
        parts=[Part(part=part, silent_seconds=activity.seconds_since_query(connection, part)) for part in PARTS],
        waiting=outbox.backlog(connection),
        done=counters.totals(connection),
        workers=counters.workers(connection),
        parked=outbox.parked(connection, PARKED),
        verified=verify.last_done(connection),
        running=verify.running(connection),
        differing=verify.known(connection),
    )


def look(settings: Settings, status: Status) -> None:
    """Add what OpenSearch knows; it may be away."""
    client = open_client(settings)
    try:
        _look(client, settings.index_prefix, status.generations)
    except (OpenSearchException, msgspec.ValidationError) as error:
        status.search = f"unreachable: {logs.error_kind(error)}"
    finally:
        client.close()


def _look(client: OpenSearch, prefix: str, generations: list[Generation]) -> None:
    """Add what OpenSearch says of the indices."""
    asked: dict[str, Any] = {"format": "json", "bytes": "b", "request_timeout": SEARCH_SECONDS}
    columns = {"h": "index,status,docs.count,store.size", "expand_wildcards": "all"}
    indices = client.cat.indices(index=f"{prefix}-*", params=asked | columns)
    aliases = client.cat.aliases(name=f"{prefix}-*", params=asked | {"h": "alias,index"})
    found = {index.index: index for index in msgspec.convert(indices, list[_Index], strict=False)}
    pairs = {(each["alias"], each["index"]) for each in aliases}
    for generation in generations:
        name = generation.index_name
        index = found.get(name, _Index(name, "missing"))
        generation.index, generation.documents, generation.bytes = index.status, index.documents, index.bytes
        wanted = {"read": naming.read_alias(prefix), "write": naming.write_alias(name)}
        generation.aliases = [kind for kind, alias in wanted.items() if (alias, name) in pairs]
