"""Repair differences through the outbox, like any change, in the lane `bulk`: no client waits for that lane."""

from collections.abc import Sequence

import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain.bulk import NOT_FOUND, IndexUnavailable, delete_unchanged, refresh
from indexer.drain.claims import VERSION_LIMIT
from indexer.verify.suspects import ConfirmedDifference, IndexedDocument
from infra.index.naming import write_alias

# The present version of the row is enough: the drain reads the row itself, OpenSearch accepts the same version again,
# and for a document with a higher version the drain raises the version of the row.
REWRITE = sa.text("""
    INSERT INTO outbox (environment_id, consumer_id, version, lane)
    SELECT environment_id, id, version, 'bulk' FROM consumers WHERE id = ANY(:ids)""")
# For a consumer without a row the drain writes a tombstone, with the version of the outbox row.
WRITE_TOMBSTONES = sa.text("""
    INSERT INTO outbox (environment_id, consumer_id, version, lane)
    SELECT d.environment_id, d.id, d.version + 1, 'bulk'
    FROM unnest(CAST(:environments AS int[]), CAST(:ids AS text[]), CAST(:versions AS bigint[]))
        AS d (environment_id, id, version)
    WHERE NOT EXISTS (SELECT FROM consumers c WHERE c.id = d.id)""")


def repair(
    connection: sa.Connection, client: OpenSearch, index: str, differences: Sequence[ConfirmedDifference]
) -> int:
    """Repair differences, and return how many. Safe to repeat.

    Args:
        connection: in a transaction; the drain indexes the outbox rows after the commit.
        client: must return JSON text.
        index: the index with the documents.
        differences: from `suspects.confirm`.

    Raises:
        IndexUnavailable, OpenSearchException: the index cannot be written.
    """
    documents = [
        difference.document for difference in differences if difference.document and _must_be_deleted(difference)
    ]
    if documents:
        _delete(client, index, documents)
    ids = [difference.id for difference in differences if difference.database_version is not None]
    if ids:
        connection.execute(REWRITE, {"ids": ids})
    resurrected = [
        difference
        for difference in differences
        if difference.cause == "resurrected" and not _must_be_deleted(difference)
    ]
    if resurrected:
        values = {
            "environments": [difference.environment_id for difference in resurrected],
            "ids": [difference.id for difference in resurrected],
            "versions": [difference.index_version for difference in resurrected],
        }
        connection.execute(WRITE_TOMBSTONES, values)
    return len(differences)


def _must_be_deleted(difference: ConfirmedDifference) -> bool:
    """Tell whether no later version can replace the document.

    A tombstone is only for the id of a consumer, and no version is higher than the limit.
    """
    belongs_to_no_consumer = difference.cause == "foreign" and difference.database_version is None
    return belongs_to_no_consumer or (difference.index_version or 0) >= VERSION_LIMIT


def _delete(client: OpenSearch, index: str, documents: Sequence[IndexedDocument]) -> None:
    """Delete documents, except documents changed after the read."""
    for item in delete_unchanged(client, write_alias(index), documents):
        if not (item.is_indexed or item.status == NOT_FOUND):
            raise IndexUnavailable(f"a document cannot be deleted: {item.status}")
    refresh(client, index)
