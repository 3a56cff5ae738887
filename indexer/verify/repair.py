"""Repair: what differs is written anew, through the outbox like any change, in the lane that holds up nobody."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain.bulk import IndexUnavailable, refresh
from indexer.drain.claims import VERSION_LIMIT
from indexer.verify.suspects import Difference, Found
from infra.index.naming import write_alias

GONE, CHANGED = 404, 409

# The drain reads the rows themselves, and steps over an index that is ahead. The present version is enough: the index
# takes the same one again.
WRITE_ANEW = sa.text("""
    INSERT INTO outbox (environment_id, consumer_id, version, lane)
    SELECT environment_id, id, version, 'bulk' FROM consumers WHERE id = ANY(:ids)""")
# Without a row the drain writes a tombstone, with the version it finds here.
BURY = sa.text("""
    INSERT INTO outbox (environment_id, consumer_id, version, lane)
    SELECT d.environment_id, d.id, d.version + 1, 'bulk'
    FROM unnest(CAST(:environments AS int[]), CAST(:ids AS text[]), CAST(:versions AS bigint[]))
        AS d (environment_id, id, version)
    WHERE NOT EXISTS (SELECT FROM consumers c WHERE c.id = d.id)""")


def mend(
    connection: sa.Connection,
    client: OpenSearch,
    index: str,
    differences: Sequence[tuple[Difference, Found | None]],
) -> int:
    """Have documents put right; answer how many. Safe to be repeated.

    Args:
        connection: in a transaction; what it adds is indexed once that is committed.
        client: whose answers are JSON text.
        index: where the documents are.
        differences: with the documents as they were found.

    Raises:
        IndexUnavailable, OpenSearchException: the index cannot be written.
    """
    # No tombstone is due for what never was a consumer, and none can be written above the highest version.
    doomed = [found for difference, found in differences if found and _must_be_removed(difference)]
    if doomed:
        _remove(client, index, doomed)
    rows = [difference.id for difference, _ in differences if difference.database_version is not None]
    if rows:
        connection.execute(WRITE_ANEW, {"ids": rows})
    dead = [each for each, _ in differences if each.cause == "resurrected" and not _must_be_removed(each)]
    if dead:
        values = {
            "environments": [each.environment_id for each in dead],
            "ids": [each.id for each in dead],
            "versions": [each.index_version for each in dead],
        }
        connection.execute(BURY, values)
    return len(differences)


def _must_be_removed(difference: Difference) -> bool:
    is_nobodys = difference.cause == "foreign" and difference.database_version is None
    return is_nobodys or (difference.index_version or 0) >= VERSION_LIMIT


def _remove(client: OpenSearch, index: str, doomed: Sequence[Found]) -> None:
    """Delete documents, unless they changed since they were found."""
    lines = []
    for found in doomed:
        action = {"_id": found.id, "if_seq_no": found.seq_no, "if_primary_term": found.primary_term}
        lines.append(msgspec.json.encode({"delete": action}))
    params = {"require_alias": "true", "filter_path": "items.*.status"}
    answer: Any = client.bulk(body=b"\n".join(lines) + b"\n", index=write_alias(index), params=params)
    for item in msgspec.json.decode(answer)["items"]:
        if (status := item["delete"]["status"]) >= 300 and status not in {GONE, CHANGED}:  # noqa: PLR2004 (HTTP's)
            raise IndexUnavailable(f"a document cannot be deleted: {status}")
    refresh(client, index)
