"""Writing again what a generation beside the live one has missed; as the drain does, but for that one alone."""

from typing import NamedTuple

import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain.bulk import fit_to_mapping, raise_if_unavailable, refresh, write
from indexer.drain.claims import Generation
from indexer.drain.round import read_documents
from infra.index import mapping, naming

ROWS = 1000

# A generation that is being filled gets them when it is full.
LACKING = sa.text("""
    SELECT g.id, g.index_name, g.state, g.document_version, g.fields FROM generations g
    WHERE g.state IN ('refreshed', 'kept') AND g.lost_at IS NULL AND NOT g.is_paused
        AND g.document_version <= :document_version AND EXISTS (
            SELECT FROM generation_misses m
            WHERE m.generation_id = g.id AND (m.retry_at IS NULL OR m.retry_at <= now()))
    ORDER BY g.state = 'kept', g.id""")
TAKE = sa.text("""
    SELECT id, environment_id, consumer_id, version FROM generation_misses
    WHERE generation_id = :generation_id AND (retry_at IS NULL OR retry_at <= now())
    ORDER BY id LIMIT :rows FOR UPDATE SKIP LOCKED""")
DONE = sa.text("DELETE FROM generation_misses WHERE generation_id = :generation_id AND id = ANY(:ids)")
# What is refused everywhere has its row in the outbox, and comes again with that.
KNOWN = sa.text("SELECT DISTINCT consumer_id FROM outbox WHERE consumer_id = ANY(:ids)")
LATER = sa.text("""
    UPDATE generation_misses SET retry_at = now() + interval '1 minute'
    WHERE generation_id = :generation_id AND id = ANY(:ids)""")


class Refilled(NamedTuple):
    rows: int
    refused: dict[str, str]
    """Why, by consumer, this generation alone does not take a document."""


def with_misses(connection: sa.Connection) -> list[Generation]:
    """The generations that are to be given what they missed."""
    rows = connection.execute(LACKING, {"document_version": mapping.DOCUMENT_VERSION})
    return [Generation.from_row(row) for row in rows]


def refill(connection: sa.Connection, client: OpenSearch, generation: Generation, rows: int = ROWS) -> Refilled:
    """Write some of what a generation missed, and make it searchable, in one transaction.

    Raises:
        IndexUnavailable, OpenSearchException: it cannot be written just now; nothing was forgotten.
        DBAPIError: the database is away.
    """
    with connection.begin():
        missed = connection.execute(TAKE, {"generation_id": generation.id, "rows": rows}).all()
        if not missed:
            return Refilled(0, {})
        versions: dict[str, tuple[int, int]] = {}
        for row in missed:
            known = versions.get(row.consumer_id, (0, 0))[1]
            versions[row.consumer_id] = (row.environment_id, max(row.version, known))
        batch, failures = read_documents(connection, versions)
        items = write(client, naming.write_alias(generation.index_name), fit_to_mapping(batch, generation.fields))
        raise_if_unavailable(items)
        refresh(client, generation.index_name)
        refused = {
            written.consumer_id: item.error_kind for written, item in zip(batch, items, strict=True) if item.is_refused
        }
        refused |= {failure.consumer_id: failure.reason.partition(":")[0] for failure in failures}
        for known in connection.execute(KNOWN, {"ids": list(refused)}).scalars():
            del refused[known]
        for statement, chosen in (
            (DONE, [row.id for row in missed if row.consumer_id not in refused]),
            (LATER, [row.id for row in missed if row.consumer_id in refused]),
        ):
            connection.execute(statement, {"generation_id": generation.id, "ids": chosen})
    return Refilled(len(missed), refused)
