"""Claiming, and giving up, rows of the outbox. All SQL of the drain is here."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa

from infra.index.documents import AUDIENCE_IDS, COLUMNS, ConsumerRow
from infra.index.generations import BARRIER

ROWS = 1000
"""Outbox rows of one round."""
REQUESTS = 20
"""Ids of requests that a round names in the log at the most."""
VERSION_LIMIT = 1 << 62
"""A row's version stays below; what the index holds above it can never be stepped over."""
MAX_ATTEMPTS = 5
"""After so many failures of its own a document is parked."""


ClaimedRow: TypeAlias = sa.Row[tuple[int, int, str, int, str | None, float]]


class Claim(NamedTuple):
    """The consumers of one round; for each the newest version the claimed rows name."""

    rows: int
    versions: dict[str, tuple[int, int]]
    """consumer id → (environment id, version)"""
    oldest_ms: float
    requests: list[str]
    """Ids of the requests that made the changes, for the log: some, if there are many."""


class Current(NamedTuple):
    row: ConsumerRow
    audience_ids: list[str]


class Generation(NamedTuple):
    """An index that is written."""

    id: int
    index_name: str
    state: str
    document_version: int
    fields: frozenset[str]
    """Those its mapping declares: it takes no others."""

    @classmethod
    def from_row(cls, row: sa.Row[Any]) -> "Generation":
        """Make a generation from a row with these columns, among others."""
        return cls(row.id, row.index_name, row.state, row.document_version, frozenset(row.fields))

    @property
    def is_live(self) -> bool:
        return self.state == "live"

    @property
    def is_refreshed(self) -> bool:
        """Whether what it is given must be searchable at once: it is read, or may be at any moment."""
        return self.state != "filling"


# A loose scan of the index: one step an environment, however long its queue is.
ENVIRONMENTS = sa.text("""
    WITH RECURSIVE waiting (environment_id) AS (
        (SELECT environment_id FROM outbox WHERE parked_at IS NULL AND lane = :lane ORDER BY environment_id LIMIT 1)
        UNION ALL
        SELECT (SELECT o.environment_id FROM outbox o
                WHERE o.parked_at IS NULL AND o.lane = :lane AND o.environment_id > w.environment_id
                ORDER BY o.environment_id LIMIT 1)
        FROM waiting w WHERE w.environment_id IS NOT NULL)
    SELECT environment_id FROM waiting WHERE environment_id IS NOT NULL""")
HAS_CLAIMABLE_ROWS = sa.text(
    "SELECT EXISTS (SELECT FROM outbox WHERE lane = :lane AND parked_at IS NULL AND retry_at IS NULL)"
)
CLAIM = sa.text("""
    SELECT o.seq, o.environment_id, o.consumer_id, o.version, o.request_id,
           extract(epoch FROM clock_timestamp() - o.created_at)::float8 * 1000 AS age_ms
    FROM unnest(CAST(:environments AS int[]), CAST(:after AS bigint[])) AS e (id, after) CROSS JOIN LATERAL (
        SELECT * FROM outbox
        WHERE parked_at IS NULL AND lane = :lane AND environment_id = e.id AND seq > e.after
            AND (retry_at IS NULL OR retry_at <= now())
        ORDER BY seq LIMIT :each FOR UPDATE SKIP LOCKED) o
    LIMIT :rows""")
TARGETS = sa.text("SELECT id, index_name, state, document_version, fields FROM targets(:barrier)")
CONSUMERS = sa.text(f"SELECT {COLUMNS}, {AUDIENCE_IDS} FROM consumers c WHERE c.id = ANY(:ids)")
# What is in the index as it is in the database, so that writing it again changes nothing.
CONSUMERS_WITHOUT_CHANGES = sa.text(f"""
    SELECT {COLUMNS}, {AUDIENCE_IDS} FROM consumers c
    WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.consumer_id = c.id) LIMIT :rows""")
DELETE_INDEXED = sa.text("""
    WITH gone AS (
        DELETE FROM outbox WHERE seq IN (
            SELECT o.seq FROM unnest(CAST(:ids AS text[]), CAST(:versions AS bigint[])) AS w (id, version)
            JOIN outbox o ON o.consumer_id = w.id AND o.version <= w.version
            FOR UPDATE OF o SKIP LOCKED)
        RETURNING lane, (greatest(0, date_part('epoch', clock_timestamp() - created_at)) * 1000000)::bigint AS delay)
    SELECT lane, array_agg(delay) AS delays FROM gone GROUP BY lane""")
# The index is ahead of the database (restored, or tampered with): step over it.
RAISE = sa.text("UPDATE consumers SET version = :version + 1 WHERE id = :id AND version < :version")
RAISE_DELETED = sa.text("""
    INSERT INTO outbox (environment_id, consumer_id, version, lane)
    SELECT :environment_id, :id, :version + 1, 'live' WHERE NOT EXISTS (SELECT FROM consumers WHERE id = :id)""")
RECORD_FAILURE = sa.text("""
    UPDATE outbox SET attempts = attempts + 1, error = :error,
        retry_at = now() + interval '1 second' * power(4, attempts),
        parked_at = CASE WHEN attempts + 1 >= :attempts THEN now() END
    WHERE seq IN (SELECT seq FROM outbox WHERE consumer_id = :id AND version <= :version AND parked_at IS NULL
                  FOR UPDATE SKIP LOCKED)""")


def claim(connection: sa.Connection, lane: str, rows: int = ROWS) -> Claim:
    """Lock the next rows of a lane, every environment its part."""
    found: list[ClaimedRow] = []
    after = dict.fromkeys(connection.execute(ENVIRONMENTS, {"lane": lane}).scalars(), 0)
    # What environments with little to do leave over goes to those with more.
    while after and len(found) < rows:
        left = rows - len(found)
        each = -(-left // len(after))
        values = {"environments": list(after), "after": list(after.values()), "lane": lane, "each": each, "rows": left}
        part = connection.execute(CLAIM, values).all()
        found += part
        taken = Counter(row.environment_id for row in part)
        last = {row.environment_id: row.seq for row in part}
        after = {number: last[number] for number, count in taken.items() if count == each}
    versions: dict[str, tuple[int, int]] = {}
    for row in found:
        if row.version > versions.get(row.consumer_id, (0, 0))[1]:
            versions[row.consumer_id] = (row.environment_id, row.version)
    requests = list(dict.fromkeys(row.request_id for row in found if row.request_id))[:REQUESTS]
    return Claim(len(found), versions, max((row.age_ms for row in found), default=0.0), requests)


def has_claimable_rows(connection: sa.Connection, lane: str) -> bool:
    """Whether a lane has something to do."""
    return bool(connection.execute(HAS_CLAIMABLE_ROWS, {"lane": lane}).scalar_one())


def targets(connection: sa.Connection) -> list[Generation]:
    """The generations to write, the live one first. Holds the barrier until the transaction ends."""
    rows = connection.execute(TARGETS, {"barrier": BARRIER})
    return [Generation.from_row(row) for row in rows]


def read_consumers(connection: sa.Connection, ids: Sequence[str]) -> dict[str, Current]:
    """The rows of consumers as they are now, by id; deleted ones are absent."""
    rows = connection.execute(CONSUMERS, {"ids": list(ids)})
    return {row[0]: Current(ConsumerRow._make(row[:-1]), row[-1]) for row in rows}


def consumers_without_changes(connection: sa.Connection, rows: int) -> list[Current]:
    """Some consumers of which no change is on its way."""
    found = connection.execute(CONSUMERS_WITHOUT_CHANGES, {"rows": rows})
    return [Current(ConsumerRow._make(row[:-1]), row[-1]) for row in found]


def delete_indexed(connection: sa.Connection, written: dict[str, int]) -> dict[str, list[int]]:
    """Delete the rows of changes that are searchable now: those claimed, and all others up to these versions.

    Answers how long ago they were made, in microseconds, by lane.
    """
    rows = connection.execute(DELETE_INDEXED, {"ids": list(written), "versions": list(written.values())})
    return {row.lane: row.delays for row in rows}


def raise_version_above(connection: sa.Connection, environment_id: int, consumer_id: str, indexed: int) -> bool:
    """If the index holds a version the database has not reached, make the next one newer still; tell whether it did."""
    values = {"environment_id": environment_id, "id": consumer_id, "version": indexed}
    return any(connection.execute(statement, values).rowcount for statement in (RAISE, RAISE_DELETED))


def record_failure(connection: sa.Connection, consumer_id: str, version: int, reason: str) -> None:
    """A document was refused for what it is: try again later, and park it in the end."""
    values = {"id": consumer_id, "version": version, "error": reason[:2000], "attempts": MAX_ATTEMPTS}
    connection.execute(RECORD_FAILURE, values)
