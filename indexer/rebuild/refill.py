"""Write the misses of a standby generation: changes not taken when the drain, or the filling, wrote them."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain.bulk import Document, convert_all, raise_if_unavailable, refresh, write
from indexer.drain.claims import Generation, Versions
from indexer.drain.portions import Failure, read_documents
from indexer.rebuild.fill import PAGE_BYTES
from infra.index import mapping, naming

# In the state `filling`, misses wait until the index is full.
WITH_MISSES = sa.text("""
    SELECT g.id, g.index_name, g.state, g.document_version, g.fields FROM generations g
    WHERE g.state IN ('refreshed', 'kept') AND g.lost_at IS NULL AND (g.state = 'kept' OR NOT g.is_paused)
        AND g.document_version <= :document_version AND EXISTS (
            SELECT FROM generation_misses m
            WHERE m.generation_id = g.id AND (m.retry_at IS NULL OR m.retry_at <= now()))
    ORDER BY g.state = 'kept', g.id""")
LOCK_MISSES = sa.text("""
    SELECT id, environment_id, consumer_id, version FROM generation_misses
    WHERE generation_id = :generation_id AND (retry_at IS NULL OR retry_at <= now())
    ORDER BY id LIMIT :rows FOR UPDATE SKIP LOCKED""")
DELETE = sa.text("DELETE FROM generation_misses WHERE generation_id = :generation_id AND id = ANY(:ids)")
IN_OUTBOX = sa.text("SELECT DISTINCT consumer_id FROM outbox WHERE consumer_id = ANY(:ids)")
RETRY_LATER = sa.text("""
    UPDATE generation_misses SET retry_at = now() + interval '1 minute'
    WHERE generation_id = :generation_id AND id = ANY(:ids)""")


def with_misses(connection: sa.Connection) -> list[Generation]:
    """List the standby generations with misses to write now, the generation being built first."""
    rows = connection.execute(WITH_MISSES, {"document_version": mapping.DOCUMENT_VERSION})
    return [Generation.from_row(row) for row in rows]


def write_misses(connection: sa.Connection, client: OpenSearch, generation: Generation, rows: int) -> dict[str, str]:
    """Write up to `rows` misses of a generation, of up to `PAGE_BYTES`, and refresh the index, in a transaction.

    A document refused by the live generation too keeps an outbox row, and returns with that row: the miss is deleted.

    Returns:
        By consumer id, the reason for each document refused by this generation alone, to be retried after a minute.

    Raises:
        IndexUnavailable, OpenSearchException: the index cannot be written at present; every miss is kept.
        DBAPIError: the database is unavailable.
    """
    with connection.begin():
        misses = connection.execute(LOCK_MISSES, {"generation_id": generation.id, "rows": rows}).all()
        if not misses:
            return {}
        documents, failures = _read(connection, _newest(misses))
        alias = naming.write_alias(generation.index_name)
        items = write(client, alias, convert_all(documents, generation))
        raise_if_unavailable(items)
        refresh(client, generation.index_name)
        refused = {
            document.consumer_id: item.error_kind
            for document, item in zip(documents, items, strict=True)
            if item.is_refused
        }
        refused |= {failure.consumer_id: failure.reason.partition(":")[0] for failure in failures}
        written = {document.consumer_id for document in documents} | {failure.consumer_id for failure in failures}
        for consumer_id in connection.execute(IN_OUTBOX, {"ids": list(refused)}).scalars():
            del refused[consumer_id]
        for statement, ids in (
            (DELETE, [miss.id for miss in misses if miss.consumer_id in written - refused.keys()]),
            (RETRY_LATER, [miss.id for miss in misses if miss.consumer_id in refused]),
        ):
            connection.execute(statement, {"generation_id": generation.id, "ids": ids})
    return refused


def _read(connection: sa.Connection, versions: Versions) -> tuple[list[Document], list[Failure]]:
    """Make documents of the consumers, in order, up to `PAGE_BYTES`."""
    page: list[Document] = []
    failures: list[Failure] = []
    size = 0
    for made in read_documents(connection, versions, is_alone=len(versions) == 1):
        if isinstance(made, Failure):
            failures.append(made)
            continue
        page.append(made)
        size += len(made.source)
        if size >= PAGE_BYTES:
            break
    return page, failures


def _newest(misses: Sequence[sa.Row[Any]]) -> Versions:
    """By consumer id, the environment id and the newest version among the misses."""
    versions: Versions = {}
    for miss in misses:
        _, known = versions.get(miss.consumer_id, (0, 0))
        versions[miss.consumer_id] = (miss.environment_id, max(miss.version, known))
    return versions
