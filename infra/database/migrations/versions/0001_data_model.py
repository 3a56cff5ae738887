"""The data model, and the triggers that record every change of a consumer.

Revision ID: 0001
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

SQL = Path(__file__).with_suffix("")


def upgrade() -> None:
    for part in ("tables", "triggers"):
        op.execute(SQL.joinpath(f"{part}.sql").read_text())


def downgrade() -> None:
    op.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
