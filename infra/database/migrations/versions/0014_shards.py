"""Shards of a generation's index, and a sequence number for each shard.

The release before this one uses `seen_seq_no`, so the column stays.

Revision ID: 0014
"""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE generations
            -- Primary shards of the index.
            ADD COLUMN shards int NOT NULL DEFAULT 1,
            -- For each shard, from shard 0, the sequence number of the last operation on the disks of all copies. A lower
            -- number later means that the shard's files were replaced by older files.
            ADD COLUMN seen_seq_nos bigint[] NOT NULL DEFAULT '{}'""")
    op.execute("UPDATE generations SET seen_seq_nos = ARRAY[seen_seq_no]")


def downgrade() -> None:
    op.execute("ALTER TABLE generations DROP COLUMN shards, DROP COLUMN seen_seq_nos")
