"""Whether an index holds what the database holds, by id and version.

A difference counts only if nothing explains it: the row, read without an outbox entry or a miss, is not in the index
with its version, though it is looked up after that.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

ROWS = 2000
ATTEMPTS = 5

PAGE = sa.text("SELECT id, version FROM consumers WHERE id > :after ORDER BY id LIMIT :rows")
ALIVE = sa.text("SELECT id FROM consumers WHERE id = ANY(:ids)")
SETTLED = sa.text("""
    SELECT i.id, coalesce(c.version, 0) AS version FROM unnest(CAST(:ids AS text[])) AS i (id)
    LEFT JOIN consumers c ON c.id = i.id
    WHERE NOT EXISTS (SELECT FROM outbox WHERE consumer_id = i.id)
        AND NOT EXISTS (SELECT FROM generation_misses m JOIN generations g ON g.id = m.generation_id
                        WHERE m.consumer_id = i.id AND g.index_name = :index)""")


class _Source(msgspec.Struct):
    deleted: bool = False


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    version: int = msgspec.field(name="_version", default=0)
    source: _Source | None = msgspec.field(name="_source", default=None)
    sort: list[Any] = []


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Found(msgspec.Struct):
    hits: _Hits


class _Got(msgspec.Struct):
    docs: list[_Hit]


def differences(engine: sa.Engine, client: OpenSearch, index: str) -> int:
    """How many consumers are not in the index as in the database, or are and should not be; in constant memory.

    Args:
        engine: for short transactions.
        client: whose answers are JSON text.
        index: refreshed since what it lacks was written.

    Raises:
        OpenSearchException, DBAPIError: one of them does not answer.
    """
    return sum(_real(engine, client, index, doubtful) for doubtful in _doubtful(engine, client, index) if doubtful)


def _doubtful(engine: sa.Engine, client: OpenSearch, index: str) -> Iterator[list[str]]:
    after = ""
    while True:
        with engine.connect() as connection:
            rows = {row.id: row.version for row in connection.execute(PAGE, {"after": after, "rows": ROWS})}
        if not rows:
            break
        body = {"query": {"ids": {"values": list(rows)}}, "size": ROWS, "version": True, "_source": ["deleted"]}
        found = {hit.id: hit for hit in _search(client, index, body) if hit.source and not hit.source.deleted}
        yield [name for name, version in rows.items() if name not in found or found[name].version != version]
        after = max(rows)
    last: list[Any] | None = None
    while True:
        body = {
            "query": {"bool": {"must_not": {"term": {"deleted": True}}}},
            "size": ROWS,
            "_source": False,
            # An id of its own may lack, and then it comes last.
            "sort": [{"id": {"order": "asc", "missing": "_last"}}],
        }
        hits = _search(client, index, body | ({"search_after": last} if last else {}))
        if not hits:
            return
        ids = [hit.id for hit in hits]
        with engine.connect() as connection:
            alive = set(connection.execute(ALIVE, {"ids": ids}).scalars())
        yield [name for name in ids if name not in alive]
        last = hits[-1].sort
        if last == [None]:
            return


def _real(engine: sa.Engine, client: OpenSearch, index: str, ids: list[str]) -> int:
    """Of these, those that stay different."""
    for _ in range(ATTEMPTS):
        with engine.connect() as connection:
            settled = {row.id: row.version for row in connection.execute(SETTLED, {"ids": ids, "index": index})}
        if not settled:
            return 0
        answer: Any = client.mget(index=index, body={"ids": list(settled)}, params={"_source_includes": "deleted"})
        found = {hit.id: hit for hit in msgspec.json.decode(answer, type=_Got).docs}
        ids = [name for name, version in settled.items() if not _agrees(found[name], version)]
        if not ids:
            return 0
    return len(ids)


def _agrees(hit: _Hit, version: int) -> bool:
    if hit.source is None or hit.source.deleted:
        return not version
    return hit.version == version


def _search(client: OpenSearch, index: str, body: dict[str, Any]) -> list[_Hit]:
    answer: Any = client.search(index=index, body=body, params={"allow_partial_search_results": "false"})
    return msgspec.json.decode(answer, type=_Found).hits.hits
