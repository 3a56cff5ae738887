"""How much each environment stores, measured regularly, and the limit of an organization.

Revision ID: 0015
"""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.execute("ALTER TABLE environments ADD COLUMN stored_mib int NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE organizations ADD COLUMN limit_stored_mib int CHECK (limit_stored_mib >= 0)")


def downgrade() -> None:
    op.execute("ALTER TABLE organizations DROP COLUMN limit_stored_mib")
    op.execute("ALTER TABLE environments DROP COLUMN stored_mib")
