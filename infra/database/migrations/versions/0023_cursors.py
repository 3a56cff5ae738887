"""Cursors with the parameters of their list.

Revision ID: 0023
"""

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    # The release before refuses cursors with parameters. If its processes may be running, cursors have none for a day.
    op.execute("ALTER TABLE sealing_keys ADD COLUMN plain_cursors_until moment")
    op.execute("""
        UPDATE sealing_keys SET plain_cursors_until = now() + interval '24 hours'
        WHERE EXISTS (SELECT FROM api_keys)""")


def downgrade() -> None:
    op.execute("ALTER TABLE sealing_keys DROP COLUMN plain_cursors_until")
