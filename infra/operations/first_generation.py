"""Create the first generation of a new database; every later generation is built by a rebuild."""

import time

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import ConnectionError as NoAnswer
from opensearchpy.exceptions import ConnectionTimeout, OpenSearchException, TransportError

from infra import logs
from infra.database import installation
from infra.database.engine import open_engine
from infra.index import generations, indices, ownership
from infra.index.client import open_client
from infra.index.generations import LOCK_BARRIER
from infra.index.indices import SearchError
from infra.operations import rebuild
from infra.settings import Settings

log = structlog.get_logger()

CREATION_SECONDS = 60
POLL_SECONDS = 0.25
PATIENCE_SECONDS = 180
"""Time for all attempts while OpenSearch is too busy to answer in time, as at the first start of a machine."""
KEEP_TRANSACTION = sa.text("SET LOCAL idle_in_transaction_session_timeout = '5min'")
"""PostgreSQL would end the transaction after 15 seconds, which is less than a busy OpenSearch takes."""


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
        return _ensure_patiently(engine, client, settings)
    except OpenSearchException as error:
        # The address may hold a password, so the message omits the address.
        raise SearchError(f"OpenSearch (OPENSEARCH_URL) cannot be used: {_first_line(error)}") from error
    finally:
        engine.dispose()
        client.close()


def _ensure_patiently(engine: sa.Engine, client: OpenSearch, settings: Settings) -> bool:
    """Repeat `_ensure` after an answer that came too late; each attempt removes the index of the attempt before."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return _ensure(engine, client, settings)
        except ConnectionTimeout as error:
            if time.monotonic() > until:
                raise
            log.warning("first_generation_postponed", reason=logs.error_kind(error))


def _ensure(engine: sa.Engine, client: OpenSearch, settings: Settings) -> bool:
    with engine.begin() as connection:
        if generations.live(connection) is None:
            installation.renew_copy(connection)
    with engine.begin() as connection:
        connection.execute(KEEP_TRANSACTION)
        connection.execute(LOCK_BARRIER)
        if (live := generations.live(connection)) is None:
            _create(connection, client, settings)
            return True
    _claim(engine, client, settings.index_prefix, live)
    return generations.is_as_declared(live, settings)


def _create(connection: sa.Connection, client: OpenSearch, settings: Settings) -> None:
    """Create an empty index. Every row of the database is still in the outbox, so the drain fills the index."""
    prefix, shards = settings.index_prefix, settings.index_shards
    existing = indices.existing(client, prefix)
    ownership.require_own(connection, existing, prefix)
    owner = installation.read(connection)
    name = generations.free_name(connection, existing, prefix)
    for leftover, index in existing.items():
        if index.installation == owner:
            # An earlier start ended before its row: nothing reads or writes this index.
            indices.delete(client, leftover)
            log.warning("index_of_a_failed_start_deleted", index=leftover)
    try:
        indices.create(client, name, owner, shards=shards, replicas=settings.index_replicas)
    except NoAnswer:
        _wait_for_index(client, prefix, name)
    except SearchError:
        # The request may have been sent to two nodes: the second one answers that the index exists.
        if name not in indices.existing(client, prefix):
            raise
    indices.switch_reads(client, prefix, name)
    rebuild.add_first(connection, name, indices.existing(client, prefix)[name].uuid, shards)


def _wait_for_index(client: OpenSearch, prefix: str, name: str) -> None:
    """Wait for an index that OpenSearch is still creating, because a busy cluster takes longer than a request waits.

    Raises:
        SearchError: the index does not exist after `CREATION_SECONDS`. A later start deletes it.
    """
    until = time.monotonic() + CREATION_SECONDS
    while name not in indices.existing(client, prefix):
        if time.monotonic() > until:
            raise SearchError(
                f"OpenSearch did not create the index {name} within {CREATION_SECONDS} seconds: see its log, and run "
                "this again"
            )
        time.sleep(POLL_SECONDS)


def _claim(engine: sa.Engine, client: OpenSearch, prefix: str, live: generations.Live) -> None:
    """Record the UUID and the owner of a live index that was made before these were recorded.

    While OpenSearch does not answer, nothing is recorded: a release must not wait for OpenSearch, and beat tries again.

    Raises:
        ForeignIndexError: the index belongs to another installation.
    """
    try:
        existing = indices.existing(client, prefix)
    except OpenSearchException as error:
        log.warning("index_owner_not_checked", reason=logs.error_kind(error))
        return
    with engine.begin() as connection:
        ownership.require_own(connection, existing, prefix)
        if index := existing.get(live.index_name):
            rebuild.record_uuid(connection, live.id, index.uuid)
            if index.installation is None and live.index_uuid in {None, index.uuid}:
                ownership.claim(client, live.index_name, index, installation.read(connection))


def _first_line(error: OpenSearchException) -> str:
    reason = error.error if isinstance(error, TransportError) and error.status_code != "N/A" else type(error).__name__
    return str(reason).partition("\n")[0]
