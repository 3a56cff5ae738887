"""Create the first generation of a new database; every later generation is built by a rebuild."""

import sqlalchemy as sa
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException, TransportError

from infra.database.engine import open_engine
from infra.index import generations, indices
from infra.index.client import open_client
from infra.index.generations import LOCK_BARRIER
from infra.index.indices import SearchError
from infra.operations import rebuild
from infra.settings import Settings


def ensure(settings: Settings) -> bool:
    """Create the first generation, unless a generation is live. Safe at every start, by many processes at once.

    Returns:
        Whether the live index has the mapping of this code and INDEX_SHARDS shards. If not, the service continues with
        the fields and the shards of the live index, until an operator starts a rebuild.

    Raises:
        SearchError: OpenSearch cannot be used.
    """
    engine = open_engine(settings)
    client = open_client(settings)
    try:
        with engine.begin() as connection:
            connection.execute(LOCK_BARRIER)
            if (live := generations.live(connection)) is None:
                _create(connection, client, settings)
                return True
            index = None if live.index_uuid else indices.existing(client, settings.index_prefix).get(live.index_name)
            if index:
                rebuild.record_uuid(connection, live.id, index.uuid)
            return generations.is_as_declared(live, settings)
    except OpenSearchException as error:
        # The address may hold a password, so the message omits the address.
        raise SearchError(f"OpenSearch (OPENSEARCH_URL) cannot be used: {_first_line(error)}") from error
    finally:
        engine.dispose()
        client.close()


def _create(connection: sa.Connection, client: OpenSearch, settings: Settings) -> None:
    """Create an empty index. Every row of the database is still in the outbox, so the drain fills the index."""
    prefix, shards = settings.index_prefix, settings.index_shards
    # Existing indices were left by another database: their names are skipped.
    name = generations.free_name(connection, indices.existing(client, prefix), prefix)
    indices.create(client, name, shards=shards, replicas=settings.index_replicas)
    indices.switch_reads(client, prefix, name)
    rebuild.add_first(connection, name, indices.existing(client, prefix)[name].uuid, shards)


def _first_line(error: OpenSearchException) -> str:
    reason = error.error if isinstance(error, TransportError) and error.status_code != "N/A" else type(error).__name__
    return str(reason).partition("\n")[0]
