"""Statements of the drain: claim outbox rows, read consumers, delete rows of indexed changes, record failures."""

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa

from infra.database.floors import (
    INDEX_ORDER,
    LANE_FLOORS,
    REFUSED,
    USE_INDEX_ORDER,
    WAITING,
    all_waiting,
    first_waiting,
    floor,
    is_near,
    rows_of_consumer,
    rows_of_environment,
    use_settings,
)
from infra.index.documents import AUDIENCE_IDS, COLUMNS, ConsumerRow
from infra.index.generations import BARRIER, State

ROWS = 1000
"""Maximum of outbox rows in a round."""
SHARES = 64
"""Number of environments that fill a claim, if each has enough rows for its share."""
HIGHEST_ID = 2**31 - 1
"""Highest possible id of an environment."""
MAX_REQUEST_IDS = 20
"""Maximum of request ids a round writes to the log."""
VERSION_LIMIT = 1 << 62
"""Versions of rows stay below this limit. An indexed version at or above the limit cannot be exceeded by a row."""
MAX_ATTEMPTS = 5
"""Number of failed attempts before the outbox rows of a refused document are parked."""

Versions: TypeAlias = dict[str, tuple[int, int]]
"""By consumer id: the environment id and the version."""
ClaimedRow: TypeAlias = sa.Row[tuple[int, int, str, int, str | None, float]]
_CHANGE = itemgetter(1, 2, 3)
"""Of a claimed row: the environment id, the consumer id and the version. By position, because names are slower."""


class Claim(NamedTuple):
    """The outbox rows of a round."""

    rows: int
    """Number of claimed rows. Several rows may name the same consumer."""
    versions: Versions
    """For each consumer the newest version among the claimed rows."""
    queues: dict[int, list[str]]
    """For each environment the consumers, the longest waiting first; environments in the order of their turns."""
    others_wait: bool
    """Whether environments that are not in `queues` may have rows."""
    oldest_ms: float
    """Age of the oldest row in milliseconds."""
    request_ids: list[str]
    """Ids of the requests behind the changes, up to `MAX_REQUEST_IDS`, for the log."""

    @property
    def is_single(self) -> bool:
        """Whether the round has a single consumer, who may be the cause if a statement or request fails."""
        return len(self.versions) == 1


STORED_CONSUMER_COLUMNS = f"{COLUMNS}, {AUDIENCE_IDS}"
"""Columns of `consumers AS c` for `StoredConsumer.from_row`."""


class StoredConsumer(NamedTuple):
    """A consumer as stored, with the ids of its audiences."""

    row: ConsumerRow
    audience_ids: list[str]

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> "StoredConsumer":
        """Make a consumer from a row of `STORED_CONSUMER_COLUMNS`."""
        return cls(ConsumerRow._make(row[:-1]), row[-1])


class Generation(NamedTuple):
    """A generation of the index, written by every round."""

    id: int
    index_name: str
    state: State
    document_version: int
    fields: frozenset[str]
    """Fields the mapping declares. The index refuses documents with undeclared fields."""

    @classmethod
    def from_row(cls, row: sa.Row[Any]) -> "Generation":
        """Make a generation from a row with columns of the same names."""
        return cls(row.id, row.index_name, row.state, row.document_version, frozenset(row.fields))

    @property
    def is_live(self) -> bool:
        return self.state == "live"

    @property
    def is_refreshed(self) -> bool:
        """Whether each round refreshes the index, because clients read the index or may do so at any moment."""
        return self.state != "filling"


# A loose index scan: one step for each environment, regardless of the number of rows.
_WALK = f"""
    {{name}} (environment_id) AS (
        (SELECT environment_id FROM outbox
         WHERE {WAITING} AND lane = :lane AND environment_id > {{low}} AND seq >= {floor(":lane")}
         ORDER BY environment_id, seq LIMIT 1)
        UNION ALL
        SELECT (SELECT environment_id FROM outbox
                WHERE {WAITING} AND lane = :lane AND environment_id > w.environment_id AND seq >= {floor(":lane")}
                ORDER BY environment_id, seq LIMIT 1)
        FROM {{name}} w WHERE w.environment_id < {{high}})"""
# A share of each environment, in the order of their turns: first the environments above `:after`.
_SHARE = f"""
    SELECT o.seq, o.environment_id, o.consumer_id, o.version, o.request_id,
           extract(epoch FROM clock_timestamp() - o.created_at)::float8 * 1000 AS age_ms
    FROM {{environments}} CROSS JOIN LATERAL (
        SELECT * FROM outbox
        WHERE {rows_of_environment("e.id", ":lane", f"greatest(e.after + 1, {floor(':lane')})")}
        LIMIT :share FOR UPDATE SKIP LOCKED) o
    LIMIT :rows"""
# Near the floor, the environments are those of all rows from the floor on.
CLAIM_NEAR = sa.text(
    _SHARE.format(
        environments=f"""(
            SELECT environment_id AS id, CAST(0 AS bigint) AS after
            FROM ({all_waiting("environment_id", ":lane")}) AS waiting
            WHERE {is_near(":lane")} AND environment_id IS DISTINCT FROM CAST(:resting AS int)
            GROUP BY environment_id ORDER BY environment_id <= :after, environment_id) e"""
    )
)
# Otherwise they are those of the next rows in the index. If a few environments have all these rows, a walk continues
# from environment to environment, as far as the claim needs. A step of the walk takes 12 µs, because PostgreSQL reads a
# whole page of the index; a row of the index takes 0.4 µs.
CLAIM_FAR = sa.text(f"""
    WITH RECURSIVE next_rows (environment_id) AS MATERIALIZED (
        SELECT environment_id FROM outbox
        WHERE {WAITING} AND lane = :lane AND environment_id > :after AND seq >= {floor(":lane")}
        ORDER BY environment_id, seq LIMIT 2 * :rows),
    {_WALK.format(name="up", low="(SELECT max(environment_id) FROM next_rows)", high=str(HIGHEST_ID))},
    {_WALK.format(name="wrapped", low="0", high=":after")},
    in_turn (id, after) AS (
        SELECT * FROM (SELECT DISTINCT environment_id, CAST(0 AS bigint) FROM next_rows ORDER BY environment_id) AS next
        UNION ALL SELECT environment_id, 0 FROM up WHERE environment_id IS NOT NULL
        UNION ALL SELECT environment_id, 0 FROM wrapped WHERE environment_id <= :after)
    {_SHARE.format(environments="(SELECT * FROM in_turn WHERE id IS DISTINCT FROM CAST(:resting AS int)) e")}""")
CLAIM = sa.text(
    _SHARE.format(environments="unnest(CAST(:environments AS int[]), CAST(:after AS bigint[])) AS e (id, after)")
)
# A round does not wait for the disk: after a crash of the server, rows that it deleted are there again, and are indexed
# again. The floors and every write wait.
USE_ROUND_SETTINGS = use_settings(INDEX_ORDER | {"synchronous_commit": "off"})
LONGEST_WAITING = sa.text(first_waiting("environment_id", ":lane"))
IS_WAITING = sa.text(f"SELECT ({first_waiting('true', ':lane')}) IS NOT NULL")
# A trigger puts these rows at the end of the lane.
RELEASE_RETRIES = sa.text("""
    UPDATE outbox SET retry_at = NULL WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM outbox WHERE lane = :lane AND parked_at IS NULL AND retry_at <= now()
        ORDER BY retry_at LIMIT :rows FOR UPDATE SKIP LOCKED))""")
TARGETS = sa.text("SELECT id, index_name, state, document_version, fields FROM targets(:barrier)")
CONSUMERS = sa.text(f"SELECT {STORED_CONSUMER_COLUMNS} FROM consumers c WHERE c.id = ANY(:ids)")
# The index holds these consumers unchanged, so a rewrite changes nothing.
CONSUMERS_WITHOUT_CHANGES = sa.text(f"""
    SELECT {STORED_CONSUMER_COLUMNS} FROM consumers c
    WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.consumer_id = c.id) LIMIT :rows""")
# The rows are named by their addresses, because for a few numbers the planner may read another index as a whole.
DELETE_INDEXED = sa.text(f"""
    WITH written AS (
        SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:versions AS bigint[])) AS w (id, version)),
    deleted AS (
        DELETE FROM outbox WHERE ctid = ANY (
            ARRAY (SELECT o.ctid FROM written w CROSS JOIN ({LANE_FLOORS}) f CROSS JOIN LATERAL (
                SELECT ctid FROM outbox WHERE {rows_of_consumer("w.id", "f.lane", "f.seq")} AND version <= w.version
                FOR UPDATE SKIP LOCKED) o)
            || ARRAY (SELECT o.ctid FROM written w JOIN outbox o ON o.consumer_id = w.id
                      WHERE o.version <= w.version AND {REFUSED} FOR UPDATE OF o SKIP LOCKED))
        RETURNING lane, (greatest(0, date_part('epoch', clock_timestamp() - created_at)) * 1000000)::bigint AS delay)
    SELECT lane, array_agg(delay) AS delays FROM deleted GROUP BY lane""")
# Locks consumers in the order of their ids, as every write to consumers does.
LOCK_CONSUMERS = sa.text("SELECT FROM consumers WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE")
USE_LANE = sa.text("SELECT set_config('consumers.lane', :lane, true)")
_AHEAD = """
    unnest(CAST(:environments AS int[]), CAST(:ids AS text[]), CAST(:versions AS bigint[]))
        AS a (environment_id, id, version)"""
RAISE = sa.text(f"""
    UPDATE consumers c SET version = a.version + 1 FROM {_AHEAD} WHERE c.id = a.id AND c.version < a.version
    RETURNING c.id""")
RAISE_DELETED = sa.text(f"""
    INSERT INTO outbox (environment_id, consumer_id, version, lane)
    SELECT a.environment_id, a.id, a.version + 1, :lane FROM {_AHEAD}
    WHERE NOT EXISTS (SELECT FROM consumers c WHERE c.id = a.id) RETURNING consumer_id""")
RECORD_FAILURE = sa.text(f"""
    UPDATE outbox SET attempts = attempts + 1, error = :error,
        retry_at = now() + interval '1 second' * power(4, attempts),
        parked_at = CASE WHEN attempts + 1 >= :attempts THEN now() END
    WHERE ctid = ANY (
        ARRAY (SELECT CASE WHEN o.parked_at IS NULL THEN o.ctid END FROM ({LANE_FLOORS}) f CROSS JOIN LATERAL (
            SELECT ctid, parked_at FROM outbox
            WHERE {rows_of_consumer(":id", "f.lane", "f.seq")} AND version <= :version FOR UPDATE SKIP LOCKED) o)
        || ARRAY (SELECT CASE WHEN parked_at IS NULL THEN ctid END FROM outbox
                  WHERE consumer_id = :id AND version <= :version AND {REFUSED} FOR UPDATE SKIP LOCKED))""")


def claim(connection: sa.Connection, lane: str, rows: int = ROWS, after: int = 0, resting: int | None = None) -> Claim:
    """Claim up to `rows` outbox rows of a lane. Rows locked by another drain are skipped, and a resting environment's.

    Environments get equal shares, beginning with the next environment above `after`, and `SHARES` of them fill the
    claim. If fewer environments wait, the remaining rows go to environments with more rows, again in equal shares.
    """
    connection.execute(USE_ROUND_SETTINGS)
    connection.execute(RELEASE_RETRIES, {"lane": lane, "rows": rows})
    share = -(-rows // SHARES)
    values = {"lane": lane, "rows": rows, "share": share, "after": after, "resting": resting}
    claimed: list[ClaimedRow] = []
    for statement in (CLAIM_NEAR, CLAIM_FAR):
        claimed = claimed or list(connection.execute(statement, values))
    others_wait = len(claimed) >= rows
    unfinished = _unfinished(claimed, share)
    while unfinished and len(claimed) < rows:
        remaining = rows - len(claimed)
        share = -(-remaining // len(unfinished))
        environments = {"environments": list(unfinished), "after": list(unfinished.values())}
        further = connection.execute(CLAIM, environments | {"lane": lane, "rows": remaining, "share": share}).all()
        claimed += further
        unfinished = _unfinished(further, share)
    return _summarize(claimed, others_wait=others_wait)


def _unfinished(claimed: Sequence[ClaimedRow], share: int) -> dict[int, int]:
    """Return the environments with a whole share, which may have more rows, with their last claimed row."""
    counts = Counter(row.environment_id for row in claimed)
    highest = {row.environment_id: row.seq for row in claimed}
    return {environment: highest[environment] for environment, count in counts.items() if count == share}


def _summarize(claimed: Sequence[ClaimedRow], *, others_wait: bool) -> Claim:
    versions: Versions = {}
    queues: dict[int, list[str]] = {}
    for environment_id, consumer_id, version in map(_CHANGE, claimed):
        if (known := versions.get(consumer_id)) is None:
            queues.setdefault(environment_id, []).append(consumer_id)
        if known is None or version > known[1]:
            versions[consumer_id] = (environment_id, version)
    request_ids = list(dict.fromkeys(row.request_id for row in claimed if row.request_id))[:MAX_REQUEST_IDS]
    oldest_ms = max((row.age_ms for row in claimed), default=0.0)
    return Claim(len(claimed), versions, queues, others_wait, oldest_ms, request_ids)


def longest_waiting_environment(connection: sa.Connection, lane: str) -> int | None:
    """Return the environment with the oldest waiting change of a lane; None if none waits."""
    connection.execute(USE_INDEX_ORDER)
    number: int | None = connection.execute(LONGEST_WAITING, {"lane": lane}).scalar_one_or_none()
    return number


def has_claimable_rows(connection: sa.Connection, lane: str) -> bool:
    """Whether a lane has rows a drain can claim at once. Rows of refused documents do not count."""
    return bool(connection.execute(IS_WAITING, {"lane": lane}).scalar_one())


def targets(connection: sa.Connection) -> list[Generation]:
    """Take the barrier (shared) until the transaction ends; return the generations to write, the live generation first.

    While a transaction holds the barrier, no generation changes its state.
    """
    rows = connection.execute(TARGETS, {"barrier": BARRIER})
    return [Generation.from_row(row) for row in rows]


def read_consumers(connection: sa.Connection, ids: Sequence[str]) -> dict[str, StoredConsumer]:
    """Read the present rows of consumers, by id. Deleted consumers are absent."""
    rows = connection.execute(CONSUMERS, {"ids": list(ids)})
    return {row[0]: StoredConsumer.from_row(row) for row in rows}


def consumers_without_changes(connection: sa.Connection, rows: int) -> list[StoredConsumer]:
    """Read up to `rows` consumers without a row in the outbox: index and database agree about these consumers."""
    result = connection.execute(CONSUMERS_WITHOUT_CHANGES, {"rows": rows})
    return [StoredConsumer.from_row(row) for row in result]


def delete_indexed(connection: sa.Connection, versions: dict[str, int]) -> dict[str, list[int]]:
    """Delete the outbox rows of indexed changes: for each consumer all rows up to the indexed version.

    Args:
        connection: the transaction of the round.
        versions: the indexed version by consumer id.

    Returns:
        By lane, the age in microseconds of each deleted row.
    """
    rows = connection.execute(DELETE_INDEXED, {"ids": list(versions), "versions": list(versions.values())})
    return {row.lane: row.delays for row in rows}


def raise_versions(connection: sa.Connection, lane: str, ahead: Versions) -> set[str]:
    """Raise the versions of consumers above the versions in the index, wherever the index is newer than the row.

    The index is ahead of the database after the database was restored, or if the index was written by hand. A new
    outbox row brings each raised consumer to the index.

    Args:
        connection: the transaction of the round.
        lane: of the round, and of the new outbox rows. A repair after a restore uses the lane `bulk`.
        ahead: the consumers, with the versions in the index.

    Returns:
        The ids of the raised consumers.
    """
    if not ahead:
        return set()
    environments, versions = zip(*ahead.values(), strict=True)
    values = {"environments": list(environments), "ids": list(ahead), "versions": list(versions), "lane": lane}
    connection.execute(USE_LANE, {"lane": lane})
    connection.execute(LOCK_CONSUMERS, {"ids": list(ahead)})
    return {row[0] for statement in (RAISE, RAISE_DELETED) for row in connection.execute(statement, values)}


def record_failure(connection: sa.Connection, consumer_id: str, version: int, reason: str) -> None:
    """Record a refused document. The outbox rows are retried later, and parked after `MAX_ATTEMPTS` failures."""
    values = {"id": consumer_id, "version": version, "error": reason[:2000], "attempts": MAX_ATTEMPTS}
    connection.execute(RECORD_FAILURE, values)
