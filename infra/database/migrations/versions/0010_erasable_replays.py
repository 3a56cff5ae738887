"""Empty the stored answers of idempotency keys when a consumer in the answer is deleted, and count their bytes.

Answers stored by the release before have no `consumer_ids`, and are deleted after 24 hours as before.

Revision ID: 0010
"""

from alembic import op

revision = "0010"
down_revision = "0009"

# The statement must use the index even if the statistics of the table are old, hence `enable_seqscan`. A concurrent
# delete of another consumer in the same answer waits at `FOR UPDATE`, and then finds the answer empty.
ERASE = r"""
    CREATE FUNCTION erase_replays() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
    DECLARE
        ids text[] := (SELECT array_agg(id) FROM old_rows);
    BEGIN
        UPDATE public.idempotency_keys k
        SET key = E'\n' || encode(sha256(convert_to(k.key, 'UTF8')), 'hex'), status = 410, headers = '{}', body = '',
            consumer_ids = NULL
        FROM (SELECT environment_id, key FROM public.idempotency_keys WHERE consumer_ids && ids
              ORDER BY environment_id, key FOR UPDATE) held
        WHERE (k.environment_id, k.key) = (held.environment_id, held.key);
        RETURN NULL;
    END $$"""


def upgrade() -> None:
    # Without a list of pending entries, which every delete would have to search.
    op.execute("""
        ALTER TABLE idempotency_keys ADD COLUMN consumer_ids text[] COLLATE "C";
        CREATE INDEX idempotency_consumers ON idempotency_keys USING gin (consumer_ids) WITH (fastupdate = off)""")
    op.execute("""
        CREATE TABLE idempotency_bytes (
            environment_id int NOT NULL REFERENCES environments ON DELETE CASCADE,
            day date NOT NULL,
            -- Each session has rows of its own, so no request waits for the row of another request.
            session smallint NOT NULL,
            bytes bigint NOT NULL,
            PRIMARY KEY (environment_id, day, session)
        ) WITH (fillfactor = 50)""")
    op.execute(ERASE)
    op.execute("""
        CREATE TRIGGER consumers_deleted_from_replays AFTER DELETE ON consumers
            REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION erase_replays()""")


def downgrade() -> None:
    op.execute("DROP TRIGGER consumers_deleted_from_replays ON consumers")
    op.execute("DROP FUNCTION erase_replays")
    op.execute("DROP TABLE idempotency_bytes")
    op.execute("ALTER TABLE idempotency_keys DROP COLUMN consumer_ids")
