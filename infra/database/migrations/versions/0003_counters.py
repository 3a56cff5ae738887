"""Counters of the indexer; indexes of the outbox for tokens and for parked changes.

Revision ID: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("CREATE INDEX outbox_tokens ON outbox (environment_id, lane, xid)")
    op.execute("CREATE INDEX outbox_parked ON outbox (environment_id, created_at) WHERE parked_at IS NOT NULL")
    # The counters are integers and never decrease, so their sum over all workers is exact in any order of addition. Each
    # session has separate rows, so no drain waits for a row of another drain.
    op.execute("""
        CREATE TABLE indexer_counters (
            worker text COLLATE "C" NOT NULL,
            lane text NOT NULL CHECK (lane IN ('live', 'bulk')),
            rounds bigint NOT NULL,
            changes bigint NOT NULL,
            documents bigint NOT NULL,
            conflicts bigint NOT NULL,
            failures bigint NOT NULL,
            -- Delay from a change until it is searchable: the sum, and a histogram (one bucket per bound, and a last one).
            delay_microseconds bigint NOT NULL,
            delay_buckets bigint[] NOT NULL CHECK (cardinality(delay_buckets) = 15),
            updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (worker, lane)
        ) WITH (fillfactor = 50)""")


def downgrade() -> None:
    op.execute("DROP TABLE indexer_counters")
    op.execute("DROP INDEX outbox_tokens, outbox_parked")
