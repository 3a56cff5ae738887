"""Store checked rows of orders: match by externalId, then insert, update or skip."""

from decimal import Decimal
from typing import Any, NamedTuple

from psycopg import sql

from infra.ids import new_ids
from infra.imports.exported import REFERENCES, Environment
from infra.imports.rules import money_faults
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

STAGING = sql.SQL("""
CREATE TEMP TABLE staging (
    row int PRIMARY KEY, consumer_id text COLLATE "C", consumer_external_id text COLLATE "C", email text,
    external_id text COLLATE "C", status text, amount numeric, refunded_amount numeric, currency_code text,
    base_amount numeric, items jsonb, placed_at timestamptz(3), metadata jsonb,
    email_key text COLLATE "C" GENERATED ALWAYS AS ({email_key}) STORED
) ON COMMIT DELETE ROWS
""")

# Lock all consumers whose totals may change, before any order.
LOCK = f"""
SELECT FROM consumers
WHERE id = ANY (ARRAY (
    SELECT c.id FROM staging s CROSS JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = {ENVIRONMENT} AND id = s.consumer_id LIMIT 1) c
    UNION
    SELECT c.id FROM staging s CROSS JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = {ENVIRONMENT} AND external_id = s.consumer_external_id
        LIMIT 1) c
    UNION
    SELECT c.id FROM staging s CROSS JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = {ENVIRONMENT} AND email_key = s.email_key LIMIT 1) c
    UNION
    SELECT o.consumer_id FROM staging s CROSS JOIN LATERAL (
        SELECT consumer_id FROM orders WHERE environment_id = {ENVIRONMENT} AND external_id = s.external_id
        LIMIT 1) o
))
ORDER BY id FOR NO KEY UPDATE
"""

# Store the staged rows, completed with the stored values or with the defaults of a new order. A row that may have a
# fault is returned instead, unless it has been checked.
STORE = sql.SQL("""
WITH resolved AS MATERIALIZED (
    SELECT s.row, w.new_id, s.external_id, o.id AS order_id, o.consumer_id AS owner_id,
        coalesce(i.id, x.id, e.id) AS named_id,
        CASE WHEN s.consumer_id IS NOT NULL THEN 0 WHEN s.consumer_external_id IS NOT NULL THEN 1
             WHEN s.email IS NOT NULL THEN 2 END AS reference,
        m.status, m.amount, m.refunded_amount, m.currency_code, m.items, m.placed_at, m.metadata,
        coalesce(s.base_amount, CASE
            WHEN m.currency_code = %(currency)s THEN m.amount
            WHEN (m.currency_code, m.amount) = (o.currency_code, o.amount) THEN o.base_amount END) AS base_amount,
        o.metadata IS NOT NULL AND s.metadata IS NOT NULL AS is_merged
    FROM unnest(%(rows)s::int[], %(ids)s::text[]) AS w (row, new_id) JOIN staging s ON s.row = w.row
    LEFT JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = {environment} AND id = s.consumer_id LIMIT 1
    ) i ON true
    LEFT JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = {environment} AND external_id = s.consumer_external_id LIMIT 1
    ) x ON true
    LEFT JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = {environment} AND email_key = s.email_key LIMIT 1
    ) e ON true
    LEFT JOIN LATERAL (
        SELECT * FROM orders WHERE environment_id = {environment} AND external_id = s.external_id LIMIT 1
    ) o ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(s.status, o.status, 'COMPLETED') AS status, coalesce(s.amount, o.amount) AS amount,
            coalesce(s.refunded_amount, o.refunded_amount, 0) AS refunded_amount,
            coalesce(s.currency_code, o.currency_code, %(currency)s) AS currency_code,
            coalesce(s.items, o.items) AS items, coalesce(s.placed_at, o.placed_at, present()) AS placed_at,
            coalesce(coalesce(o.metadata, '{{}}') || s.metadata, o.metadata) AS metadata
    ) m
), sound AS MATERIALIZED (
    SELECT * FROM resolved WHERE %(checked)s OR (
        CASE WHEN order_id IS NULL THEN named_id IS NOT NULL ELSE reference IS NULL OR named_id = owner_id END
        AND refunded_amount <= amount
        AND base_amount = CASE WHEN currency_code = %(currency)s THEN amount ELSE base_amount END
        AND NOT (is_merged AND ({suspect}))
    )
), updated AS (
    UPDATE orders o SET
        status = s.status, amount = s.amount, refunded_amount = s.refunded_amount, currency_code = s.currency_code,
        base_amount = s.base_amount, items = s.items, placed_at = s.placed_at, metadata = s.metadata
    FROM sound s
    WHERE o.id = s.order_id AND
        (o.status, o.amount, o.refunded_amount, o.currency_code, o.base_amount, o.items, o.placed_at, o.metadata)
        IS DISTINCT FROM
        (s.status, s.amount, s.refunded_amount, s.currency_code, s.base_amount, s.items, s.placed_at, s.metadata)
    RETURNING 1
), inserted AS (
    INSERT INTO orders (id, environment_id, consumer_id, external_id, status, amount, refunded_amount, currency_code,
        base_amount, items, placed_at, metadata)
    SELECT new_id, %(environment)s, named_id, external_id, status, amount, refunded_amount, currency_code,
        base_amount, items, placed_at, metadata
    FROM sound WHERE order_id IS NULL
    ON CONFLICT DO NOTHING RETURNING 1
)
SELECT c.new, c.inserted, c.known, c.updated,
    r.row, r.order_id, r.owner_id, r.named_id, r.reference, r.amount, r.refunded_amount, r.base_amount, r.currency_code,
    CASE WHEN r.is_merged THEN r.metadata END AS metadata
FROM (
    SELECT (SELECT count(*) FROM sound WHERE order_id IS NULL) AS new, (SELECT count(*) FROM inserted) AS inserted,
        (SELECT count(*) FROM sound WHERE order_id IS NOT NULL) AS known, (SELECT count(*) FROM updated) AS updated
) c LEFT JOIN resolved r ON r.row NOT IN (SELECT row FROM sound)
""").format(environment=sql.SQL(ENVIRONMENT), suspect=sql.SQL(SUSPECT_METADATA))


class Stored(NamedTuple):
    """Numbers of the rows that were stored."""

    new: int
    inserted: int
    """Fewer than `new` if a concurrent transaction took an external id."""
    known: int
    updated: int


class Resolved(NamedTuple):
    """The order that a row would produce."""

    row: int
    order_id: str | None
    owner_id: str | None
    """The stored order's consumer."""
    named_id: str | None
    """The consumer named by the row."""
    reference: int | None
    """Index in `REFERENCES` of the field that names the consumer."""
    amount: Decimal | None
    refunded_amount: Decimal
    base_amount: Decimal | None
    currency_code: str
    metadata: dict[str, Any] | None
    """Merged metadata; set only if it may exceed a limit."""


def prepare(connection: Db) -> None:
    connection.execute(STAGING.format(email_key=email_key(connection)))


def store(connection: Db, environment: Environment) -> Outcome:
    """Store the rows of the staging table, with the same result as row after row."""
    connection.execute(LOCK, {"environment": environment.id})
    staged = connection.execute("SELECT row, external_id FROM staging ORDER BY row")
    outcome = Outcome()
    for rows in waves({row: (external_id,) for row, external_id in staged}):
        outcome.add(_store_wave(connection, environment, rows))
    return outcome


def faults(row: Resolved, currency: str) -> list[str]:
    """Return the faults of the order that a row would produce; `currency` is the environment's."""
    problems = []
    if row.reference is not None and row.named_id is None:
        problems.append(f"{REFERENCES[row.reference]}: unknown consumer")
    elif row.order_id is None and row.named_id is None:
        problems.append(f"one of {', '.join(REFERENCES)} must name a new order's consumer")
    elif row.order_id is not None and row.named_id not in (None, row.owner_id):
        assert row.reference is not None
        problems.append(f"{REFERENCES[row.reference]}: the order exists and keeps its consumer")
    if row.amount is None:
        problems.append("amount: required for a new order")
    elif row.base_amount is None:
        problems.append(f"baseAmount: required, because currencyCode is not {currency}")
    local = row.currency_code == currency
    problems += money_faults(row.amount, row.refunded_amount, row.base_amount, local=local, currency=currency)
    return problems + metadata_faults(row.metadata)


def _store_wave(connection: Db, environment: Environment, rows: list[int], *, checked: bool = False) -> Outcome:
    """Store rows without common orders; with `checked`, `faults` has found none in the rows."""
    parameters = {
        "environment": environment.id,
        "currency": environment.currency,
        "rows": rows,
        "ids": new_ids("ord_", len(rows)),
        "checked": checked,
    }
    results = connection.execute(STORE, parameters).fetchall()
    numbers = len(Stored._fields)
    stored = Stored._make(results[0][:numbers])
    if stored.inserted < stored.new:
        raise ValueTaken
    outcome = Outcome(stored.inserted, stored.updated, stored.known - stored.updated)
    suspects = [Resolved._make(result[numbers:]) for result in results if result[numbers] is not None]
    sound: list[int] = []
    for row in sorted(suspects):
        if problems := faults(row, environment.currency):
            outcome.rejects[row.row] = "; ".join(problems)
        else:
            sound.append(row.row)
    if sound:
        outcome.add(_store_wave(connection, environment, sound, checked=True))
    return outcome
