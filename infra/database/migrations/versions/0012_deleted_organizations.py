"""A deleted organization is marked at once; its data is deleted later, in small portions.

Revision ID: 0012
"""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.execute("ALTER TABLE organizations ADD COLUMN deleted_at timestamptz(3)")
    # A worker that was frozen during the deletion may write a late document. Documents of these environments are deleted
    # again for a week, which is as long as tombstones are kept.
    op.execute("""
        CREATE TABLE erased_environments (
            id int PRIMARY KEY,
            erased_at moment NOT NULL DEFAULT present()
        )""")


def downgrade() -> None:
    op.execute("DROP TABLE erased_environments")
    op.execute("ALTER TABLE organizations DROP COLUMN deleted_at")
