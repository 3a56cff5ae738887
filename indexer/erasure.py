"""Delete the data of deleted organizations, in the background and in short transactions.

`consumers org delete` marks an organization and revokes its keys. Then, for each of its environments, in this order:

1. Orders, memberships and consumers are deleted, in the lane `bulk`, as by requests: triggers add outbox rows, and
   empty the stored answers of idempotency keys.
2. The drain turns the documents into tombstones. Until then, the next step waits.
3. The rows of every further table with a column `environment_id` are deleted. The tables are read from the catalogue,
   so that a new table cannot be forgotten.
4. The tombstones, and any further documents of the environment, are deleted from every generation of the index.
5. The environments and the organization are deleted, and the name is free again.

A step deletes at most `ROWS` rows or documents in a transaction, and the state of the work is what remains, so any
worker continues after a kill.
"""

import time
from typing import Any, NamedTuple

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from redis import Redis

from indexer import upkeep
from indexer.drain import claims
from infra.accounts.keys import CACHE_SECONDS
from infra.database import installation
from infra.database.floors import LANE_FLOORS, REFUSED, WAITING

log = structlog.get_logger()

ROWS = 1000
"""Maximum of rows, or documents, deleted in a transaction."""

GRACE_SECONDS = CACHE_SECONDS + 1
"""How long a deletion waits, because API processes accept the revoked keys for `CACHE_SECONDS`."""

DELETED = sa.text(f"""
    SELECT id FROM organizations WHERE deleted_at < now() - interval '{GRACE_SECONDS} seconds' ORDER BY deleted_at""")
LOCK = sa.text("""
    SELECT o.id, ARRAY (SELECT e.id FROM environments e WHERE e.organization_id = o.id) AS environments
    FROM organizations o WHERE o.id = :id FOR UPDATE SKIP LOCKED""")
USE_BULK_LANE = sa.text("SELECT set_config('consumers.lane', 'bulk', true)")
# Locks consumers first and in the order of their ids, as every write to consumers does.
LOCK_CONSUMERS = sa.text("""
    SELECT id FROM consumers WHERE environment_id = ANY(:environments) ORDER BY id LIMIT :rows FOR UPDATE""")
# A consumer is deleted once nothing depends on the consumer, because the cascade of a foreign key has no limit.
DELETE_DEPENDENT_FIRST = [
    sa.text("""
        DELETE FROM orders WHERE id = ANY (ARRAY (
            SELECT id FROM orders
            WHERE environment_id = ANY(:environments) AND consumer_id = ANY(:ids) LIMIT :rows))"""),
    sa.text("""
        DELETE FROM audience_members m USING (
            SELECT audience_id, consumer_id FROM audience_members WHERE consumer_id = ANY(:ids) LIMIT :rows) d
        WHERE (m.audience_id, m.consumer_id) = (d.audience_id, d.consumer_id)"""),
    sa.text("DELETE FROM consumers WHERE id = ANY(:ids)"),
]
# Parked changes are never indexed. The change of the deletion follows them.
DELETE_PARKED = sa.text("DELETE FROM outbox WHERE environment_id = ANY(:environments) AND parked_at IS NOT NULL")
HAS_CHANGES = sa.text(f"""
    SELECT EXISTS (SELECT FROM ({LANE_FLOORS}) AS f CROSS JOIN unnest(CAST(:environments AS int[])) AS e (id)
                   JOIN outbox o ON o.environment_id = e.id AND o.lane = f.lane AND o.seq >= f.seq WHERE {WAITING})
        OR EXISTS (SELECT FROM outbox WHERE environment_id = ANY(:environments) AND {REFUSED})""")
TABLES = sa.text("""
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attname = 'environment_id'
        AND c.relname NOT IN ('consumers', 'orders', 'audience_members', 'outbox') ORDER BY 1""")
DELETE_ROWS = """
    DELETE FROM {table} WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM {table} WHERE environment_id = ANY(:environments) LIMIT :rows))"""
# The lock waits for transactions that insert rows of the environments, and none can begin afterwards.
LOCK_ENVIRONMENTS = sa.text("SELECT FROM environments WHERE id = ANY(:environments) FOR UPDATE")
HAS_CONSUMERS = sa.text("SELECT EXISTS (SELECT FROM consumers WHERE environment_id = ANY(:environments))")
FORGET = [
    sa.text("INSERT INTO erased_environments (id) SELECT unnest(CAST(:environments AS int[])) ON CONFLICT DO NOTHING"),
    sa.text("DELETE FROM environments WHERE id = ANY(:environments)"),
    sa.text("DELETE FROM organizations WHERE id = :organization"),
]
ERASED = sa.text("SELECT id FROM erased_environments")
FORGET_ERASED = sa.text(f"""
    DELETE FROM erased_environments WHERE erased_at < now() - interval '{upkeep.TOMBSTONE_DAYS} days'""")


class Deleted(NamedTuple):
    """A deleted organization, locked by this transaction."""

    id: str
    environments: list[int]


class Erasure:
    """Deletes the data of deleted organizations in this process."""

    def __init__(self, engine: sa.Engine, client: OpenSearch, redis: Redis, index_prefix: str) -> None:
        """Take the resources.

        Args:
            engine: with room for a connection.
            client: with answers as JSON text.
            redis: has the counters of the rate limits.
            index_prefix: of this service, also in the names of the counters.
        """
        self._engine, self._client, self._redis, self._index_prefix = engine, client, redis, index_prefix

    def work(self, seconds: float) -> bool:
        """Continue for about `seconds`; return whether there is more to do at once.

        Raises:
            DBAPIError, OpenSearchException, RedisError: a server is unavailable. A later call continues.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with self._engine.connect() as connection:
                organizations = list(connection.execute(DELETED).scalars())
            # Each organization gets a turn: one may have to wait for the drain.
            advanced = [self._step(organization) for organization in organizations]
            if not any(advanced):
                return False
        return True

    def purge_late_documents(self) -> int:
        """Delete documents that were written after the deletion of their environment; return their number.

        Raises:
            DBAPIError, OpenSearchException: a server is unavailable.
        """
        with self._engine.begin() as connection:
            environments = list(connection.execute(ERASED).scalars())
            documents = self._delete_documents(connection, environments) if environments else 0
            if not documents:
                connection.execute(FORGET_ERASED)
        return documents

    def _step(self, organization: str) -> bool:
        """Run a transaction for an organization; return whether the deletion advanced."""
        with self._engine.begin() as connection:
            row = connection.execute(LOCK, {"id": organization}).one_or_none()
            if row is None:
                return False  # another worker has the organization
            deleted = Deleted._make(row)
            values = {"environments": deleted.environments, "rows": ROWS}
            connection.execute(USE_BULK_LANE)
            if _delete_consumers(connection, values):
                return True
            connection.execute(DELETE_PARKED, values)
            if connection.execute(HAS_CHANGES, values).scalar_one():
                return False  # the drain has to index the changes first
            if _delete_further_rows(connection, values) or self._delete_documents(connection, deleted.environments):
                return True
            self._delete_counters(connection, deleted.environments)
            return _forget(connection, deleted)

    def _delete_documents(self, connection: sa.Connection, environments: list[int]) -> int:
        """Delete documents of environments from each generation. The transaction holds the barrier meanwhile."""
        filters = [{"terms": {"environmentId": [str(environment) for environment in environments]}}]
        generations = claims.targets(connection)
        return sum(
            upkeep.delete_documents(self._client, generation.index_name, filters, ROWS) for generation in generations
        )

    def _delete_counters(self, connection: sa.Connection, environments: list[int]) -> None:
        prefix = installation.key_prefix(self._index_prefix, installation.read(connection))
        for environment in environments:
            pattern = f"{prefix}limits:{environment}:*"
            for name in self._redis.scan_iter(match=pattern, count=1000):
                self._redis.delete(name)


def _delete_consumers(connection: sa.Connection, values: dict[str, Any]) -> int:
    """Delete orders, memberships or consumers; return the number of rows, 0 if no consumer is left."""
    ids = list(connection.execute(LOCK_CONSUMERS, values).scalars())
    for statement in DELETE_DEPENDENT_FIRST if ids else ():
        if rows := connection.execute(statement, values | {"ids": ids}).rowcount:
            return rows
    return 0


def _delete_further_rows(connection: sa.Connection, values: dict[str, Any]) -> int:
    """Delete rows of a table with rows left; return their number, 0 if no table has any."""
    for table in connection.execute(TABLES).scalars():
        if rows := connection.execute(sa.text(DELETE_ROWS.format(table=table)), values).rowcount:
            return rows
    return 0


def _forget(connection: sa.Connection, deleted: Deleted) -> bool:
    """Delete the organization, unless a late request has inserted a consumer; return whether to continue."""
    values = {"environments": deleted.environments, "organization": deleted.id}
    connection.execute(LOCK_ENVIRONMENTS, values)
    if not connection.execute(HAS_CONSUMERS, values).scalar_one():
        for statement in FORGET:
            connection.execute(statement, values)
        log.info("organization_deleted", organization=deleted.id)
    return True
