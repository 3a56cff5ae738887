"""A rebuild's verification goes on where it was, and its rate knows of rests; an index that went back is known; a
reindex is a run like a verification.

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
            -- Of the time since `filling_at`, in which nothing was to be filled in.
            ADD COLUMN rested interval NOT NULL DEFAULT '0',
            -- The last operation of the index that all its copies have for good: it never has fewer, unless older files
            -- were put in place of its own.
            ADD COLUMN seen_seq_no bigint NOT NULL DEFAULT -1""")
    op.execute("ALTER TABLE verifications DROP CONSTRAINT verifications_kind_check")
    op.execute(f"""
        ALTER TABLE verifications
            ADD CONSTRAINT verifications_kind_check CHECK (kind IN ({KINDS}, 'reindex')),
            -- Which consumers a reindex is of, as whoever asked for it said; null: no reindex.
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
