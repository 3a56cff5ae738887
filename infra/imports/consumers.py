"""Stores checked rows of consumers: matched by externalId or e-mail, inserted, updated or left as they are.

The database finds and locks what the rows match, `decide` says what becomes of each, the database does it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from psycopg import sql

from infra.ids import new_ids
from infra.imports.rules import Environment
from infra.imports.staging import SUSPECT_METADATA, Db, Outcome, email_key, metadata_faults, waves

STAGING = sql.SQL("""
CREATE TEMP TABLE staging (
    row int PRIMARY KEY, external_id text COLLATE "C", full_name text, email text, phone text, metadata jsonb,
    email_key text COLLATE "C" GENERATED ALWAYS AS ({email_key}) STORED
) ON COMMIT DELETE ROWS
""")

# Consumers changed while the lock was waited for are looked at again, so that what returns is locked and matches.
# One that another session makes matching only now is met as a unique violation, and the chunk begins anew.
MATCH = sql.SQL("""
WITH candidates AS MATERIALIZED (
    SELECT s.row, c.id FROM staging s
    JOIN consumers c ON c.environment_id = %(environment)s AND c.external_id = s.external_id
    WHERE s.row = ANY (%(rows)s)
    UNION
    SELECT s.row, c.id FROM staging s
    JOIN consumers c ON c.environment_id = %(environment)s AND c.email_key = s.email_key
    WHERE s.row = ANY (%(rows)s)
)
SELECT s.row, c.id, c.external_id, CASE WHEN s.metadata IS NOT NULL THEN (
    SELECT metadata FROM (SELECT coalesce(c.metadata, '{{}}') || s.metadata) AS merged (metadata)
    WHERE {suspect}) END
FROM candidates k
JOIN staging s ON s.row = k.row
JOIN consumers c ON c.id = k.id AND (c.external_id = s.external_id OR c.email_key = s.email_key)
ORDER BY c.id FOR NO KEY UPDATE OF c
""").format(suspect=sql.SQL(SUSPECT_METADATA))

UPDATE = """
UPDATE consumers c SET
    external_id = coalesce(s.external_id, c.external_id), full_name = coalesce(s.full_name, c.full_name),
    email = coalesce(s.email, c.email), phone = coalesce(s.phone, c.phone),
    metadata = coalesce(coalesce(c.metadata, '{}') || s.metadata, c.metadata)
FROM unnest(%(rows)s::int[], %(ids)s::text[]) AS m (row, id) JOIN staging s ON s.row = m.row
WHERE c.id = m.id AND (c.external_id, c.full_name, c.email, c.phone, c.metadata) IS DISTINCT FROM (
    coalesce(s.external_id, c.external_id), coalesce(s.full_name, c.full_name), coalesce(s.email, c.email),
    coalesce(s.phone, c.phone), coalesce(coalesce(c.metadata, '{}') || s.metadata, c.metadata))
"""

INSERT = """
INSERT INTO consumers (id, environment_id, external_id, full_name, email, phone, metadata)
SELECT m.id, %(environment)s, s.external_id, s.full_name, s.email, s.phone, s.metadata
FROM unnest(%(rows)s::int[], %(ids)s::text[]) AS m (row, id) JOIN staging s ON s.row = m.row
ORDER BY s.row
"""


class Match(NamedTuple):
    row: int
    id: str
    external_id: str | None
    merged: dict[str, Any] | None
    """Metadata after merging, where it may be too much."""


def prepare(connection: Db) -> None:
    connection.execute(STAGING.format(email_key=email_key(connection)))


def store(connection: Db, environment: Environment) -> Outcome:
    """Store what was copied to the staging table, as if row after row."""
    keys: dict[int, list[tuple[str, str]]] = {}
    given: dict[int, str | None] = {}
    staged = connection.execute("SELECT row, external_id, email_key FROM staging ORDER BY row")
    for row, external_id, key in staged:
        given[row] = external_id
        keys[row] = [("externalId", external_id)] if external_id else []
        keys[row] += [("email", key)] if key else []
    matches = _match(connection, environment, list(keys))
    for match in matches:
        keys[match.row].append(("id", match.id))
    outcome = Outcome()
    for number, rows in enumerate(waves(keys)):
        if number > 0:  # what the waves before it stored may match now
            matches = _match(connection, environment, rows)
        outcome.add(_store_wave(connection, environment, {row: given[row] for row in rows}, matches))
    return outcome


def decide(external_id: str | None, matches: Sequence[Match]) -> tuple[str | None, str | None]:
    """The id of the consumer to update, or why the row cannot go in; neither: it is a new one."""
    if not matches:
        return None, None
    if len(matches) > 1:
        return None, "email: Email already exists, on another consumer than the externalId names"
    match = matches[0]
    if external_id and match.external_id and match.external_id != external_id:
        return None, "email: Email already exists, on a consumer with another externalId"
    faults = metadata_faults(match.merged)
    return match.id, "; ".join(faults) or None


def _match(connection: Db, environment: Environment, rows: list[int]) -> list[Match]:
    parameters = {"environment": environment.id, "rows": rows}
    return [Match(*found) for found in connection.execute(MATCH, parameters)]


def _store_wave(
    connection: Db, environment: Environment, given: dict[int, str | None], matches: Sequence[Match]
) -> Outcome:
    found: dict[int, list[Match]] = {row: [] for row in given}
    for match in matches:
        if match.row in found:
            found[match.row].append(match)
    outcome = Outcome()
    new: list[int] = []
    known: dict[int, str] = {}
    for row, external_id in given.items():
        target, fault = decide(external_id, found[row])
        if fault:
            outcome.rejects[row] = fault
        elif target:
            known[row] = target
        else:
            new.append(row)
    if known:
        parameters = {"rows": list(known), "ids": list(known.values())}
        outcome.updated = connection.execute(UPDATE, parameters).rowcount
        outcome.unchanged = len(known) - outcome.updated
    if new:
        parameters = {"rows": new, "ids": new_ids("cons_", len(new))}
        outcome.inserted = connection.execute(INSERT, parameters | {"environment": environment.id}).rowcount
    return outcome
