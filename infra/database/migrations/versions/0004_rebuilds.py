"""Generations beside the live one: how far they are, what they missed, and what is asked of them.

Revision ID: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"

# What the first generation's documents hold: it was made when no other were.
FIRST = """id row environmentId version deleted deletedAt email phone phoneDigits fullName externalId totalOrders
    totalOrderValue lastOrderAt createdAt updatedAt audienceIds""".split()
# Whoever takes the lock must see what was committed by the one before. A single statement would have looked at the
# rows before it waited; a volatile function's statements look anew.
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
            -- Of the index as it was made: another of the same name is not it. Null: not made yet, or not known.
            ADD COLUMN index_uuid text,
            -- The fields its mapping declares; a document gets no others.
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
            -- When the index was found gone, or another in its place.
            ADD COLUMN lost_at moment,
            ADD COLUMN removed_at moment""")
    op.execute("ALTER TABLE generations ALTER COLUMN fields DROP DEFAULT, ALTER COLUMN phase DROP DEFAULT")
    # Parts of the table, by id: from after `position`, which moves, up to `until_id`; null is the end of all.
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
    # What a generation beside the live one failed to take. Only ever appended to, so that no drain waits for another,
    # or for whoever writes them again.
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
    # What is not live would be written no more.
    op.execute("UPDATE generations SET state = 'dropped' WHERE state <> 'live'")
    op.execute("""
        ALTER TABLE generations DROP COLUMN index_uuid, DROP COLUMN fields, DROP COLUMN phase, DROP COLUMN is_paused,
            DROP COLUMN wanted, DROP COLUMN total, DROP COLUMN differences, DROP COLUMN error, DROP COLUMN filling_at,
            DROP COLUMN refreshed_at, DROP COLUMN verified_at, DROP COLUMN ended_at, DROP COLUMN keep_until,
            DROP COLUMN lost_at, DROP COLUMN removed_at""")
