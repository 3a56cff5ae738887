"""What the indexer has done is counted; tokens, and what was parked, are found by an index.

Revision ID: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("CREATE INDEX outbox_tokens ON outbox (environment_id, lane, xid)")
    op.execute("CREATE INDEX outbox_parked ON outbox (environment_id, created_at) WHERE parked_at IS NOT NULL")
    # Numbers only ever grow, and are whole: their sum over all workers stays the same, to the last digit, however rows
    # are added together. Each session has rows of its own, so no drain waits for another's.
    op.execute("""
        CREATE TABLE indexer_counters (
            worker text COLLATE "C" NOT NULL,
            lane text NOT NULL CHECK (lane IN ('live', 'bulk')),
            rounds bigint NOT NULL,
            changes bigint NOT NULL,
            documents bigint NOT NULL,
            conflicts bigint NOT NULL,
            failures bigint NOT NULL,
            -- From a change to its being searchable: the sum, and how many took up to each of the bounds, and longer.
            delay_microseconds bigint NOT NULL,
            delay_buckets bigint[] NOT NULL CHECK (cardinality(delay_buckets) = 15),
            updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (worker, lane)
        ) WITH (fillfactor = 50)""")


def downgrade() -> None:
    op.execute("DROP TABLE indexer_counters")
    op.execute("DROP INDEX outbox_tokens, outbox_parked")
