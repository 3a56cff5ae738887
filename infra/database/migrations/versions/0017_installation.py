"""The id of the installation, which names the owner of indices in OpenSearch and of keys in Redis.

Revision ID: 0017
"""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE installation (
            is_single boolean PRIMARY KEY DEFAULT true CHECK (is_single),
            id uuid NOT NULL DEFAULT gen_random_uuid(),
            -- System identifier of the server, and number of the database there: they differ in a copy.
            database text NOT NULL,
            created_at moment NOT NULL DEFAULT present()
        )""")
    op.execute("""
        INSERT INTO installation (database)
        SELECT system_identifier || ':' || (SELECT oid FROM pg_database WHERE datname = current_database())
        FROM pg_control_system()""")


def downgrade() -> None:
    op.execute("DROP TABLE installation")
