"""Keep values of consumers out of the planner's statistics.

ANALYZE copies values of each column to `pg_statistic`, where they would stay after the deletion of the row until a later
ANALYZE. The planner needs no values of these columns: most are in no condition, and the rest are unique. The search for
stored answers of deleted consumers uses its index, whatever the statistics are.

Revision ID: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

COLUMNS = {
    "consumers": ("email", "email_key", "phone", "full_name", "external_id", "metadata"),
    "orders": ("external_id", "items", "metadata"),
    "audiences": ("name", "description", "metadata", "rules"),
    "idempotency_keys": ("key", "headers", "body"),
    "outbox": ("error",),
    "verifications": ("scope",),
}
UNIQUE = {"consumers": ("email_key", "external_id"), "orders": ("external_id",), "idempotency_keys": ("key",)}
"""Columns in conditions. Their values are unique in an environment, which is what the planner has to know."""

CLEAR = sa.text("SELECT pg_clear_attribute_stats(CAST(current_schema() AS text), :table, :column, false)")
SET_UNIQUE = sa.text("""
    SELECT pg_restore_attribute_stats('schemaname', CAST(current_schema() AS text), 'relname', CAST(:table AS text),
        'attname', CAST(:column AS text), 'inherited', false, 'null_frac', CAST(0 AS real), 'avg_width', 20,
        'n_distinct', CAST(-1 AS real))""")

# Only a bitmap scan of `idempotency_consumers` is left to the planner. In a table that is small by its statistics, it
# would read all rows in the order of the primary key.
ERASE = r"""
    CREATE OR REPLACE FUNCTION erase_replays() RETURNS trigger LANGUAGE plpgsql
        SET enable_seqscan = off SET enable_indexscan = off AS $$
    DECLARE
        ids text[] := (SELECT array_agg(id) FROM old_rows);
        held tid[];
    BEGIN
        -- A concurrent delete of another consumer in the same answer waits here, and then finds the answer empty.
        held := ARRAY (SELECT ctid FROM public.idempotency_keys WHERE consumer_ids && ids
                       ORDER BY environment_id, key FOR UPDATE);
        UPDATE public.idempotency_keys
        SET key = E'\n' || encode(sha256(convert_to(key, 'UTF8')), 'hex'), status = 410, headers = '{}', body = '',
            consumer_ids = NULL
        WHERE ctid = ANY (held);
        RETURN NULL;
    END $$"""


def upgrade() -> None:
    op.execute(ERASE)
    connection = op.get_bind()
    for table, columns in COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 0")
            # ANALYZE keeps the statistics of a column without a target.
            connection.execute(CLEAR, {"table": table, "column": column})
    for table, columns in UNIQUE.items():
        for column in columns:
            connection.execute(SET_UNIQUE, {"table": table, "column": column})


def downgrade() -> None:
    for table, columns in COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS DEFAULT")
