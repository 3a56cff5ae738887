"""Standby generations: progress, misses, and pending requests.

Revision ID: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"

# The fields of documents in a generation made before this migration.
FIRST = """id row environmentId version deleted deletedAt email phone phoneDigits fullName externalId totalOrders
    totalOrderValue lastOrderAt createdAt updatedAt audienceIds""".split()
# After waiting for the lock, the query must see the commit of the previous holder. A single statement would take its
# snapshot before the wait; each statement of a volatile function takes a new snapshot.
TARGETS = """
    CREATE FUNCTION targets(barrier int) RETURNS SETOF generations LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(barrier);
        RETURN QUERY SELECT * FROM public.generations
            WHERE state = 'live' OR (state IN ('filling', 'refreshed', 'kept') AND index_uuid IS NOT NULL)
            ORDER BY state <> 'live', id;
    END $$"""


def upgrade() -> None:
    op.execute(f"""
        ALTER TABLE generations
            -- UUID of the created index: another index of the same name has another UUID. Null: not created or not known.
            ADD COLUMN index_uuid text,
            -- Fields declared by the mapping; a document is written without further fields.
            ADD COLUMN fields text[] NOT NULL DEFAULT '{{{",".join(FIRST)}}}',
            ADD COLUMN phase text NOT NULL DEFAULT 'done'
                CHECK (phase IN ('requested', 'creating', 'filling', 'refilling', 'verifying', 'swapping', 'done',
                                 'failed', 'cancelled')),
            ADD COLUMN is_paused boolean NOT NULL DEFAULT false,
            ADD COLUMN wanted text CHECK (wanted IN ('cancel', 'rollback')),
            ADD COLUMN total bigint NOT NULL DEFAULT 0,
            ADD COLUMN differences bigint,
            ADD COLUMN error text,
            ADD COLUMN filling_at moment,
            ADD COLUMN refreshed_at moment,
            ADD COLUMN verified_at moment,
            ADD COLUMN ended_at moment,
            ADD COLUMN keep_until moment,
            -- When the index was found missing or replaced.
            ADD COLUMN lost_at moment,
            ADD COLUMN removed_at moment""")
    op.execute("ALTER TABLE generations ALTER COLUMN fields DROP DEFAULT, ALTER COLUMN phase DROP DEFAULT")
    # Parts of `consumers`: the ids after `position`, which moves forward, up to `until_id`. Null: to the last id.
    op.execute("""
        CREATE TABLE generation_slices (
            generation_id int NOT NULL REFERENCES generations ON DELETE CASCADE,
            number int NOT NULL,
            position text COLLATE "C" NOT NULL,
            until_id text COLLATE "C",
            documents bigint NOT NULL DEFAULT 0,
            done_at moment,
            PRIMARY KEY (generation_id, number)
        ) WITH (fillfactor = 50)""")
    # Changes that a standby generation did not take. Drains only insert rows, so no drain waits for another drain, or for
    # the worker that writes the missed changes again.
    op.execute("""
        CREATE TABLE generation_misses (
            id bigint GENERATED ALWAYS AS IDENTITY,
            generation_id int NOT NULL REFERENCES generations ON DELETE CASCADE,
            environment_id int NOT NULL,
            consumer_id text COLLATE "C" NOT NULL,
            version bigint NOT NULL,
            reason text NOT NULL,
            retry_at timestamptz,
            PRIMARY KEY (generation_id, id)
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)""")
    op.execute('CREATE INDEX generation_misses_consumer ON generation_misses (consumer_id)')
    op.execute(TARGETS)


def downgrade() -> None:
    op.execute("DROP FUNCTION targets")
    op.execute("DROP TABLE generation_misses, generation_slices")
    # Earlier code writes only the live generation, so all further generations would become outdated.
    op.execute("UPDATE generations SET state = 'dropped' WHERE state <> 'live'")
    op.execute("""
        ALTER TABLE generations DROP COLUMN index_uuid, DROP COLUMN fields, DROP COLUMN phase, DROP COLUMN is_paused,
            DROP COLUMN wanted, DROP COLUMN total, DROP COLUMN differences, DROP COLUMN error, DROP COLUMN filling_at,
            DROP COLUMN refreshed_at, DROP COLUMN verified_at, DROP COLUMN ended_at, DROP COLUMN keep_until,
            DROP COLUMN lost_at, DROP COLUMN removed_at""")
