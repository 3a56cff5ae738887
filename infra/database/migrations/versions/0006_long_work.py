"""Resume a rebuild's verification, leave pauses out of its rate, detect an index with older files, and store reindexes
as runs.

Revision ID: 0006
"""

from alembic import op

revision = "0006"
down_revision = "0005"

KINDS = "'verify', 'repair', 'watch'"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE generations
            -- Ids up to here are verified.
            ADD COLUMN verify_position text COLLATE "C" NOT NULL DEFAULT '',
            ADD COLUMN paused_at moment,
            -- Total of the pauses since `filling_at`; left out of the rate.
            ADD COLUMN rested interval NOT NULL DEFAULT '0',
            -- Sequence number of the last operation on the disks of all copies. A lower number later means that the
            -- index's files were replaced by older files.
            ADD COLUMN seen_seq_no bigint NOT NULL DEFAULT -1""")
    op.execute("ALTER TABLE verifications DROP CONSTRAINT verifications_kind_check")
    op.execute(f"""
        ALTER TABLE verifications
            ADD CONSTRAINT verifications_kind_check CHECK (kind IN ({KINDS}, 'reindex')),
            -- The consumers chosen for a reindex, as in the request; null: the run is not a reindex.
            ADD COLUMN scope jsonb,
            ADD CONSTRAINT verifications_scope_check CHECK ((kind = 'reindex') = (scope IS NOT NULL))""")


def downgrade() -> None:
    op.execute("DELETE FROM verifications WHERE kind = 'reindex'")
    op.execute("ALTER TABLE verifications DROP CONSTRAINT verifications_scope_check, DROP COLUMN scope")
    op.execute(f"""
        ALTER TABLE verifications DROP CONSTRAINT verifications_kind_check,
            ADD CONSTRAINT verifications_kind_check CHECK (kind IN ({KINDS}))""")
    op.execute("""
        ALTER TABLE generations DROP COLUMN verify_position, DROP COLUMN paused_at, DROP COLUMN rested,
            DROP COLUMN seen_seq_no""")
