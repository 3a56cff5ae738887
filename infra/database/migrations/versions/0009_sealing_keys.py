"""The keys that seal consistency tokens, entity tags and cursors, with a first key.

Revision ID: 0009
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

# The release before may have served this database if it has API keys. Texts in the former formats then stay valid for
# a day, which is how long a cursor is valid.
FIRST_KEY = sa.text("""
    INSERT INTO sealing_keys (secret, unsealed_until)
    SELECT :secret, CASE WHEN EXISTS (SELECT FROM api_keys) THEN now() + interval '24 hours' END""")


def upgrade() -> None:
    op.execute("""
        CREATE TABLE sealing_keys (
            -- The first byte of every sealed text.
            id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (id BETWEEN 1 AND 255),
            secret bytea NOT NULL CHECK (octet_length(secret) = 64),
            created_at moment NOT NULL DEFAULT present(),
            -- Until when the formats before sealing are accepted as well; null: never.
            unsealed_until moment
        )""")
    op.get_bind().execute(FIRST_KEY, {"secret": secrets.token_bytes(64)})


def downgrade() -> None:
    op.execute("DROP TABLE sealing_keys")
