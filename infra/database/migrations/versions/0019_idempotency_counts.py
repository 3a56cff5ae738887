"""Bytes of stored answers, counted in rows with few versions each.

Revision ID: 0019
"""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    # The table `idempotency_bytes` stays for the processes of the release before.
    op.execute("""
        CREATE TABLE idempotency_counts (
            environment_id int NOT NULL REFERENCES environments ON DELETE CASCADE,
            day date NOT NULL,
            -- Each session has rows of its own, so no request waits for the row of another request.
            session smallint NOT NULL,
            -- A session begins another part after some answers. The last part has the sum of the parts before.
            part int NOT NULL,
            bytes_before bigint NOT NULL,
            bytes bigint NOT NULL,
            answers int NOT NULL,
            PRIMARY KEY (environment_id, day, session, part)
        ) WITH (fillfactor = 50)""")


def downgrade() -> None:
    op.execute("DROP TABLE idempotency_counts")
