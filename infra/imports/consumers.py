"""Store checked rows of consumers: match by externalId or e-mail, then insert, update or skip.

1. The database finds and locks the consumers that match the rows.
2. `decide` chooses for each row: insert, update or reject.
3. The database inserts and updates.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from psycopg import sql
from psycopg.rows import class_row

from infra.ids import new_ids
from infra.imports import rules
from infra.imports.rules import Environment
from infra.imports.staging import SUSPECT_METADATA, Db, Outcome, ValueTaken, email_key, metadata_faults, waves

COLUMNS = tuple(rules.CONSUMERS.columns.values())
MERGED = {column: f"coalesce(s.{column}, c.{column})" for column in COLUMNS} | {
    "metadata": "coalesce(coalesce(c.metadata, '{}') || s.metadata, c.metadata)"
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
MATCH = """
SELECT id, external_id, email_key FROM consumers
WHERE id = ANY (ARRAY (
    SELECT c.id FROM staging s CROSS JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = %(environment)s AND external_id = s.external_id LIMIT 1) c
    WHERE s.row = ANY (%(rows)s)
    UNION
    SELECT c.id FROM staging s CROSS JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = %(environment)s AND email_key = s.email_key LIMIT 1) c
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


def store(connection: Db, environment: Environment) -> Outcome:
    """Store the rows of the staging table, with the same result as row after row."""
    staged = connection.execute("SELECT row, external_id, email_key FROM staging ORDER BY row")
    rows_keys = {row: RowKeys(*keys) for row, *keys in staged}
    matches = _match(connection, environment, rows_keys)
    touched = {
        row: [key for key in enumerate(keys) if key[1]] + [("id", stored.id) for stored in matches[row]]
        for row, keys in rows_keys.items()
    }
    outcome = Outcome()
    for number, rows in enumerate(waves(touched)):
        wave = {row: rows_keys[row] for row in rows}
        if number > 0:  # rows of an earlier wave may match now
            matches = _match(connection, environment, wave)
        outcome.add(_store_wave(connection, environment, wave, matches))
    return outcome


def decide(keys: RowKeys, matches: Sequence[Stored]) -> tuple[str | None, str | None]:
    """Return the id of the consumer to update, or the reason to reject the row. A new consumer has neither."""
    if not matches:
        return None, None
    if len(matches) > 1:
        return None, "email: Email already exists, on another consumer than the externalId names"
    stored = matches[0]
    if keys.external_id and stored.external_id and stored.external_id != keys.external_id:
        return None, "email: Email already exists, on a consumer with another externalId"
    return stored.id, None


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
    connection: Db, environment: Environment, rows_keys: Mapping[int, RowKeys], matches: Mapping[int, Sequence[Stored]]
) -> Outcome:
    outcome = Outcome()
    new: list[int] = []
    known: dict[int, str] = {}
    for row, keys in rows_keys.items():
        target, fault = decide(keys, matches[row])
        if fault:
            outcome.rejects[row] = fault
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
