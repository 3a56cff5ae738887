"""A deleted audience disappears at once; the memberships are deleted later, in small portions.

Revision ID: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("ALTER TABLE audiences ADD COLUMN deleted_at timestamptz(3)")
    op.execute("CREATE INDEX audiences_by_time ON audiences (environment_id, created_at DESC, id DESC)")
    op.execute("CREATE INDEX audiences_deleted ON audiences (deleted_at) WHERE deleted_at IS NOT NULL")


def downgrade() -> None:
    # Without the column, deleted audiences would exist again.
    op.execute("DELETE FROM audiences WHERE deleted_at IS NOT NULL")
    op.execute("DROP INDEX audiences_by_time, audiences_deleted")
    op.execute("ALTER TABLE audiences DROP COLUMN deleted_at")
