"""Purging the documents of consumers that were deleted long ago.

By then no older write can be on its way. Each goes only if it is still what was found, and only where nothing but the
live generation is written: what is being built, or may be gone back to, needs every one of them.
"""

from typing import Any

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer import claims
from infra import documents

DAYS = 7
ROWS = 1000


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    seq_no: int = msgspec.field(name="_seq_no")
    primary_term: int = msgspec.field(name="_primary_term")


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Found(msgspec.Struct):
    hits: _Hits


class _Item(msgspec.Struct):
    status: int


class _Answer(msgspec.Struct):
    items: list[dict[str, _Item]] = []


def purge(engine: sa.Engine, client: OpenSearch) -> int:
    """Remove some tombstones older than a week; answer how many.

    Args:
        engine: for one transaction; no generation changes its state meanwhile.
        client: whose answers are JSON text.

    Raises:
        OpenSearchException, DBAPIError: one of them does not answer.
    """
    with engine.begin() as connection:
        generations = claims.targets(connection)
        if len(generations) != 1 or not generations[0].is_live:
            return 0
        index = generations[0].index_name
        old = [{"term": {"deleted": True}}, {"range": {"deletedAt": {"lt": f"now-{DAYS}d"}}}]
        body = {
            "query": {"bool": {"filter": old}},
            "size": ROWS,
            "_source": False,
            "seq_no_primary_term": True,
        }
        answer: Any = client.search(index=index, body=body)
        hits = msgspec.json.decode(answer, type=_Found).hits.hits
        if not hits:
            return 0
        lines = [
            {"delete": {"_id": hit.id, "if_seq_no": hit.seq_no, "if_primary_term": hit.primary_term}} for hit in hits
        ]
        alias, content = documents.write_alias(index), b"\n".join(map(msgspec.json.encode, lines)) + b"\n"
        params = {"require_alias": "true", "refresh": "true", "filter_path": "items.*.status"}
        answer = client.bulk(body=content, index=alias, params=params)
    items = msgspec.json.decode(answer, type=_Answer).items
    return sum(item["delete"].status == 200 for item in items)  # noqa: PLR2004 (HTTP's success)
