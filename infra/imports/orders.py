"""Store checked rows of orders: match by externalId, then insert, update or skip."""

from decimal import Decimal
from typing import Any, NamedTuple

from psycopg import sql
from psycopg.rows import class_row

from infra.ids import new_ids
from infra.imports.exported import REFERENCES, Environment
from infra.imports.rules import money_faults
from infra.imports.staging import SUSPECT_METADATA, Db, Outcome, ValueTaken, email_key, metadata_faults, waves

STAGING = sql.SQL("""
CREATE TEMP TABLE staging (
    row int PRIMARY KEY, consumer_id text COLLATE "C", consumer_external_id text COLLATE "C", email text,
    external_id text COLLATE "C", status text, amount numeric, refunded_amount numeric, currency_code text,
    base_amount numeric, items jsonb, placed_at timestamptz(3), metadata jsonb,
    email_key text COLLATE "C" GENERATED ALWAYS AS ({email_key}) STORED,
    order_id text COLLATE "C", owner_id text COLLATE "C"
) ON COMMIT DELETE ROWS
""")

# Lock all consumers whose totals may change, before any order.
LOCK = """
SELECT FROM consumers
WHERE id = ANY (ARRAY (
    SELECT c.id FROM staging s CROSS JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = %(environment)s AND id = s.consumer_id LIMIT 1) c
    UNION
    SELECT c.id FROM staging s CROSS JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = %(environment)s AND external_id = s.consumer_external_id
        LIMIT 1) c
    UNION
    SELECT c.id FROM staging s CROSS JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = %(environment)s AND email_key = s.email_key LIMIT 1) c
    UNION
    SELECT o.consumer_id FROM staging s CROSS JOIN LATERAL (
        SELECT consumer_id FROM orders WHERE environment_id = %(environment)s AND external_id = s.external_id
        LIMIT 1) o
))
ORDER BY id FOR NO KEY UPDATE
"""

# Complete the staged rows with the stored values, or with the defaults of a new order.
RESOLVE = sql.SQL("""
UPDATE staging s SET
    order_id = o.order_id, owner_id = coalesce(o.owner_id, o.named_id), status = o.status, amount = o.amount,
    refunded_amount = o.refunded_amount, currency_code = o.currency_code, placed_at = o.placed_at,
    items = o.items, metadata = o.metadata, base_amount = coalesce(s.base_amount, CASE
        WHEN o.currency_code = %(currency)s THEN o.amount
        WHEN (o.currency_code, o.amount) = (o.old_currency_code, o.old_amount) THEN o.old_base_amount END)
FROM (
    SELECT s.row, o.id AS order_id, o.consumer_id AS owner_id, coalesce(i.id, x.id, e.id) AS named_id,
        coalesce(s.status, o.status, 'COMPLETED') AS status, coalesce(s.amount, o.amount) AS amount,
        coalesce(s.refunded_amount, o.refunded_amount, 0) AS refunded_amount,
        coalesce(s.currency_code, o.currency_code, %(currency)s) AS currency_code,
        coalesce(s.items, o.items) AS items, coalesce(s.placed_at, o.placed_at, present()) AS placed_at,
        coalesce(coalesce(o.metadata, '{{}}') || s.metadata, o.metadata) AS metadata,
        o.amount AS old_amount, o.currency_code AS old_currency_code, o.base_amount AS old_base_amount
    FROM staging s
    LEFT JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = %(environment)s AND id = s.consumer_id LIMIT 1
    ) i ON true
    LEFT JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = %(environment)s AND external_id = s.consumer_external_id LIMIT 1
    ) x ON true
    LEFT JOIN LATERAL (
        SELECT id FROM consumers WHERE environment_id = %(environment)s AND email_key = s.email_key LIMIT 1
    ) e ON true
    LEFT JOIN LATERAL (
        SELECT * FROM orders WHERE environment_id = %(environment)s AND external_id = s.external_id LIMIT 1
    ) o ON true
    WHERE s.row = ANY (%(rows)s)
) o
WHERE o.row = s.row
RETURNING s.row, o.order_id, o.owner_id, o.named_id,
    CASE WHEN s.consumer_id IS NOT NULL THEN 0 WHEN s.consumer_external_id IS NOT NULL THEN 1
         WHEN s.email IS NOT NULL THEN 2 END AS reference,
    s.amount, s.refunded_amount, s.base_amount, s.currency_code,
    (SELECT metadata FROM (SELECT s.metadata) AS merged (metadata) WHERE {suspect}) AS metadata
""").format(suspect=sql.SQL(SUSPECT_METADATA))

UPDATE = """
UPDATE orders o SET
    status = s.status, amount = s.amount, refunded_amount = s.refunded_amount, currency_code = s.currency_code,
    base_amount = s.base_amount, items = s.items, placed_at = s.placed_at, metadata = s.metadata
FROM staging s
WHERE s.row = ANY (%(rows)s) AND o.id = s.order_id
    AND o.id = ANY (ARRAY (SELECT order_id FROM staging WHERE row = ANY (%(rows)s))) AND
    (o.status, o.amount, o.refunded_amount, o.currency_code, o.base_amount, o.items, o.placed_at, o.metadata)
    IS DISTINCT FROM
    (s.status, s.amount, s.refunded_amount, s.currency_code, s.base_amount, s.items, s.placed_at, s.metadata)
"""

INSERT = """
INSERT INTO orders (id, environment_id, consumer_id, external_id, status, amount, refunded_amount, currency_code,
    base_amount, items, placed_at, metadata)
SELECT m.id, %(environment)s, s.owner_id, s.external_id, s.status, s.amount, s.refunded_amount, s.currency_code,
    s.base_amount, s.items, s.placed_at, s.metadata
FROM unnest(%(rows)s::int[], %(ids)s::text[]) AS m (row, id) JOIN staging s ON s.row = m.row
ORDER BY s.row ON CONFLICT DO NOTHING
"""


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


def _store_wave(connection: Db, environment: Environment, rows: list[int]) -> Outcome:
    parameters = {"environment": environment.id, "currency": environment.currency, "rows": rows}
    resolved = sorted(connection.cursor(row_factory=class_row(Resolved)).execute(RESOLVE, parameters))
    outcome = Outcome()
    new: list[int] = []
    known: list[int] = []
    for row in resolved:
        if problems := faults(row, environment.currency):
            outcome.rejects[row.row] = "; ".join(problems)
        else:
            (known if row.order_id else new).append(row.row)
    if known:
        outcome.updated = connection.execute(UPDATE, {"rows": known}).rowcount
        outcome.unchanged = len(known) - outcome.updated
    if new:
        parameters = {"environment": environment.id, "rows": new, "ids": new_ids("ord_", len(new))}
        outcome.inserted = connection.execute(INSERT, parameters).rowcount
        if outcome.inserted < len(new):
            raise ValueTaken
    return outcome
