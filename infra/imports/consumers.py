"""Store checked rows of consumers: match by externalId or e-mail, then insert, update or skip.

1. The database finds and locks the matching consumers.
2. `decide` chooses for each row: insert, update or defer.
3. The database inserts and updates.
4. At the end of the file, `settle` stores the deferred rows, because by then the taken address of a row may be free,
   or rows may exchange their addresses.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from psycopg import sql
from psycopg.rows import class_row

from infra.ids import new_ids
from infra.imports import rules
from infra.imports.exported import Environment
from infra.imports.staging import (
    ENVIRONMENT,
    SUSPECT_METADATA,
    Db,
    Outcome,
    ValueTaken,
    email_key,
    metadata_faults,
    waves,
)
from infra.unique_values import Claim, judge

COLUMNS = tuple(rules.CONSUMERS.columns.values())
MERGED = {column: f"coalesce(s.{column}, c.{column})" for column in COLUMNS} | {
    "email_as_sent": "CASE WHEN s.email IS NULL THEN c.email_as_sent ELSE s.email_as_sent END",
    "metadata": "coalesce(coalesce(c.metadata, '{}') || s.metadata, c.metadata)",
}
"""By column, the value after a row `s` is merged into a consumer `c`. An empty cell keeps the stored value."""

# The columns get the types and collations of the table.
STAGING = sql.SQL("""
CREATE TEMP TABLE staging ON COMMIT DELETE ROWS AS SELECT 0 AS row, {columns} FROM consumers WHERE false;
ALTER TABLE staging ADD PRIMARY KEY (row),
    ADD COLUMN email_key text COLLATE "C" GENERATED ALWAYS AS ({email_key}) STORED
""")

# After waiting for a lock, the statement returns the current consumer, which may no longer match. A consumer that
# begins to match during the chunk has a taken value, and the chunk is repeated.
MATCH = f"""
SELECT id, external_id, email_key FROM consumers
WHERE id = ANY (ARRAY (
    SELECT c.id FROM staging s CROSS JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = {ENVIRONMENT} AND external_id = s.external_id LIMIT 1) c
    WHERE s.row = ANY (%(rows)s)
    UNION
    SELECT c.id FROM staging s CROSS JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = {ENVIRONMENT} AND email_key = s.email_key LIMIT 1) c
    WHERE s.row = ANY (%(rows)s)
))
ORDER BY id FOR NO KEY UPDATE
"""

METADATA = sql.SQL("""
SELECT row, metadata FROM (
    SELECT s.row, coalesce(c.metadata, '{{}}') || s.metadata AS metadata
    FROM unnest(%(rows)s::int[], %(ids)s::text[]) AS m (row, id) JOIN staging s ON s.row = m.row
    JOIN consumers c ON c.id = m.id AND c.id = ANY (%(ids)s)
) merged
WHERE {suspect}
""").format(suspect=sql.SQL(SUSPECT_METADATA))

UPDATE = f"""
UPDATE consumers c SET {", ".join(f"{column} = {value}" for column, value in MERGED.items())}
FROM unnest(%(rows)s::int[], %(ids)s::text[]) AS m (row, id) JOIN staging s ON s.row = m.row
WHERE c.id = m.id AND c.id = ANY (%(ids)s) AND
    ({", ".join(f"c.{column}" for column in MERGED)}) IS DISTINCT FROM ({", ".join(MERGED.values())})
"""

INSERT = f"""
INSERT INTO consumers (id, environment_id, {", ".join(MERGED)})
SELECT m.id, %(environment)s, {", ".join(f"s.{column}" for column in MERGED)}
FROM unnest(%(rows)s::int[], %(ids)s::text[]) AS m (row, id) JOIN staging s ON s.row = m.row
ORDER BY s.row ON CONFLICT DO NOTHING
"""

RELEASE = "UPDATE consumers SET email = NULL WHERE id = ANY (%s)"
WAITS = "externalId or email: shared with a row above that was rejected, so the order of the rows matters"


class RowKeys(NamedTuple):
    """The identifiers in a row; at least one is set."""

    external_id: str | None
    email_key: str | None


class Stored(NamedTuple):
    """A locked consumer."""

    id: str
    external_id: str | None
    email_key: str | None


def prepare(connection: Db) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, MERGED))
    connection.execute(STAGING.format(columns=columns, email_key=email_key(connection)))


def store(connection: Db, environment: Environment, waiting: AbstractSet[Hashable] = frozenset()) -> Outcome:
    """Store the rows of the staging table, with the same result as row after row.

    Args:
        connection: with the rows in the staging table.
        environment: the target environment.
        waiting: keys of deferred rows. A later row with such a key is deferred too.
    """
    rows_keys = _staged(connection)
    matches = _match(connection, environment, rows_keys)
    touched = {row: _touched(keys, matches[row]) for row, keys in rows_keys.items()}
    outcome = Outcome(waiting=set(waiting))
    for number, rows in enumerate(waves(touched)):
        wave = {row: rows_keys[row] for row in rows}
        if number > 0:  # rows of an earlier wave may match now
            matches = _match(connection, environment, wave)
        outcome.add(_store_wave(connection, environment, wave, matches, outcome.waiting))
    return outcome


class _Rejected(Exception):  # noqa: N818 (a state of the rows: the savepoint is undone)
    """Rows cannot be stored with the rest."""

    def __init__(self, rejects: dict[int, str]) -> None:
        self.rejects = rejects


def settle(connection: Db, environment: Environment) -> Outcome:
    """Store the deferred rows in the staging table, if the addresses are unique once all of them are stored."""
    rows_keys = _staged(connection)
    rejects: dict[int, str] = {}
    while True:
        matches = _match(connection, environment, rows_keys)
        unsettled, released = _judged(rows_keys, matches)
        rejects |= unsettled
        rows_keys = {row: keys for row, keys in rows_keys.items() if row not in unsettled}
        try:
            with connection.transaction():
                connection.execute(RELEASE, [released])
                connection.execute("DELETE FROM staging WHERE NOT row = ANY (%s)", [list(rows_keys)])
                outcome = store(connection, environment)
                if refused := outcome.rejects | outcome.deferred:
                    raise _Rejected(refused)
        except _Rejected as error:
            rejects |= error.rejects
            rows_keys = {row: keys for row, keys in rows_keys.items() if row not in error.rejects}
        else:
            outcome.rejects = rejects
            return outcome


def _target(keys: RowKeys, matches: Sequence[Stored]) -> Stored | None:
    """Return the consumer that a row changes, if its address is free; None for a new consumer."""
    by_id = [stored for stored in matches if keys.external_id and stored.external_id == keys.external_id]
    by_email = [stored for stored in matches if not (keys.external_id and stored.external_id)]
    return next(iter(by_id or by_email), None)


def _judged(
    rows_keys: Mapping[int, RowKeys], matches: Mapping[int, Sequence[Stored]]
) -> tuple[dict[int, str], Sequence[str]]:
    """Judge the rows by the addresses after all of them.

    Returns:
        The reason for each row whose address stays with another consumer, and the ids of the consumers that must give
        up their address before the other rows are stored.
    """
    owners = {stored.email_key: stored.id for found in matches.values() for stored in found if stored.email_key}
    reasons: dict[int, str] = {}
    while True:
        rows: dict[str | None, list[int]] = defaultdict(list)
        claims: dict[str | None, Claim] = {}
        for row, keys in rows_keys.items():
            if row not in reasons:
                target = _target(keys, matches[row])
                person, before = (target.id, target.email_key) if target else (keys.external_id or keys.email_key, None)
                rows[person].append(row)
                after = claims[person].after if person in claims else before
                claims[person] = Claim(target.id if target else None, before, keys.email_key or after)
        verdict = judge(list(claims.values()), owners)
        people = list(claims)
        stuck = [people[index] for index in {*verdict.taken, *verdict.repeated}]
        if not stuck:
            return reasons, verdict.released
        for person in stuck:
            faults = {row: decide(rows_keys[row], matches[row])[1] for row in rows[person]}
            reasons |= {row: fault for row, fault in faults.items() if fault} or dict.fromkeys(faults, WAITS)


def decide(keys: RowKeys, matches: Sequence[Stored]) -> tuple[str | None, str | None]:
    """Return the id of the consumer to update, or the reason to defer the row. A new consumer has neither."""
    if not matches:
        return None, None
    if len(matches) > 1:
        return None, "email: Email already exists, on another consumer than the externalId names"
    stored = matches[0]
    if keys.external_id and stored.external_id and stored.external_id != keys.external_id:
        return None, "email: Email already exists, on a consumer with another externalId"
    return stored.id, None


def _staged(connection: Db) -> dict[int, RowKeys]:
    staged = connection.execute("SELECT row, external_id, email_key FROM staging ORDER BY row")
    return {row: RowKeys(*keys) for row, *keys in staged}


def _touched(keys: RowKeys, matches: Iterable[Stored]) -> list[Hashable]:
    """Return the identifiers of the row, and the ids of the consumers that match."""
    return [key for key in enumerate(keys) if key[1]] + [("id", stored.id) for stored in matches]


def _match(connection: Db, environment: Environment, rows_keys: Mapping[int, RowKeys]) -> dict[int, list[Stored]]:
    """Lock the consumers that match the rows, in id order; return the matching consumers by row."""
    parameters = {"environment": environment.id, "rows": list(rows_keys)}
    locked = connection.cursor(row_factory=class_row(Stored)).execute(MATCH, parameters).fetchall()
    by_external_id: dict[str | None, Stored] = {stored.external_id: stored for stored in locked if stored.external_id}
    by_email: dict[str | None, Stored] = {stored.email_key: stored for stored in locked if stored.email_key}
    return {
        row: list(dict.fromkeys(filter(None, (by_external_id.get(keys.external_id), by_email.get(keys.email_key)))))
        for row, keys in rows_keys.items()
    }


def _store_wave(
    connection: Db,
    environment: Environment,
    rows_keys: Mapping[int, RowKeys],
    matches: Mapping[int, Sequence[Stored]],
    waiting: set[Hashable],
) -> Outcome:
    outcome = Outcome()
    new: list[int] = []
    known: dict[int, str] = {}
    for row, keys in rows_keys.items():
        target, fault = decide(keys, matches[row])
        touched = _touched(keys, matches[row])
        if fault or not waiting.isdisjoint(touched):
            outcome.deferred[row] = fault or WAITS
            waiting.update(touched)
        elif target:
            known[row] = target
        else:
            new.append(row)
    if known:
        for row, merged in connection.execute(METADATA, _pairs(known)):
            if faults := metadata_faults(merged):
                outcome.rejects[row] = "; ".join(faults)
                del known[row]
        outcome.updated = connection.execute(UPDATE, _pairs(known)).rowcount
        outcome.unchanged = len(known) - outcome.updated
    if new:
        ids = new_ids("cons_", len(new))
        parameters = {"environment": environment.id, "rows": new, "ids": ids}
        outcome.inserted = connection.execute(INSERT, parameters).rowcount
        if outcome.inserted < len(new):
            raise ValueTaken
    return outcome


def _pairs(known: Mapping[int, str]) -> dict[str, list[int] | list[str]]:
    return {"rows": list(known), "ids": list(known.values())}
