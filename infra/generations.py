"""Generations: the index that is read, and the rows that say so.

A change of a generation's state takes `BARRIER` exclusively; every drain holds it shared while it writes.
"""

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException, TransportError

from infra import db, documents, opensearch
from infra.settings import Settings

log = structlog.get_logger()

BARRIER = 0x67656E73

LIVE = sa.text("SELECT index_name, mapping_digest FROM generations WHERE state = 'live'")
NEXT = sa.text("SELECT count(*) + 1 FROM generations")
ADD = sa.text("""
    INSERT INTO generations (index_name, state, document_version, mapping_digest, live_at)
    VALUES (:index_name, 'live', :document_version, :mapping_digest, present())""")


class SearchError(Exception):
    """OpenSearch cannot be used; the message is one line for the person who needs it."""


def ensure(settings: Settings) -> None:
    """Create the first generation, unless there is one. Safe at every start, by many processes at once.

    Raises:
        SearchError: OpenSearch cannot be used; one line for the person who started this.
    """
    engine = db.engine(settings)
    client = opensearch.client(settings)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": BARRIER})
            if (live := connection.execute(LIVE).one_or_none()) is None:
                _create_first(connection, client, settings.index_prefix)
            elif live.mapping_digest != documents.MAPPING_DIGEST:
                log.warning("mapping_differs", index=live.index_name, advice="consumers index rebuild")
    except OpenSearchException as error:
        # Not the address: it may hold a password.
        raise SearchError(f"OpenSearch (OPENSEARCH_URL) cannot be used: {_line(error)}") from error
    finally:
        engine.dispose()
        client.close()


def _line(error: OpenSearchException) -> str:
    reason = error.error if isinstance(error, TransportError) and error.status_code != "N/A" else type(error).__name__
    return str(reason).partition("\n")[0]


def _create_first(connection: sa.Connection, client: OpenSearch, prefix: str) -> None:
    """Every row of the database is in the outbox still, for nothing was ever indexed: the drain fills it."""
    number = connection.execute(NEXT).scalar_one()
    while client.indices.exists(index=(name := documents.index_name(prefix, number))):
        number += 1  # left by another database
    client.indices.create(
        index=name,
        body={
            "settings": documents.INDEX_SETTINGS,
            "mappings": documents.MAPPING,
            "aliases": {documents.write_alias(name): {}},
        },
    )
    alias = documents.read_alias(prefix)
    client.indices.update_aliases(
        body={
            "actions": [
                {"remove": {"index": "*", "alias": alias, "must_exist": False}},
                {"add": {"index": name, "alias": alias, "filter": {"term": {"deleted": False}}}},
            ]
        }
    )
    connection.execute(
        ADD,
        {
            "index_name": name,
            "document_version": documents.DOCUMENT_VERSION,
            "mapping_digest": documents.MAPPING_DIGEST,
        },
    )
