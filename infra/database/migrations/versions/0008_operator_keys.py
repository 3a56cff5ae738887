"""Keys of operators, which belong to no organization, and the answers stored under their idempotency keys.

The scope `admin` stays in the keys that have it, because the release before still needs it.

Revision ID: 0008
"""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE operator_keys (
            id text COLLATE "C" PRIMARY KEY DEFAULT new_id('opkey_'),
            name text NOT NULL,
            secret_hash bytea NOT NULL UNIQUE,
            -- The secret's first characters, to tell keys apart in a list.
            hint text NOT NULL,
            created_at moment NOT NULL DEFAULT present(),
            expires_at moment,
            revoked_at moment,
            last_used_at moment
        )""")
    op.execute("""
        CREATE TABLE operator_idempotency_keys (
            operator_key_id text COLLATE "C" NOT NULL REFERENCES operator_keys,
            key text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
            fingerprint bytea NOT NULL,
            status smallint NOT NULL,
            headers jsonb NOT NULL,
            body bytea NOT NULL,
            created_at moment NOT NULL DEFAULT present(),
            PRIMARY KEY (operator_key_id, key)
        )""")
    op.execute("CREATE INDEX ON operator_idempotency_keys (created_at)")


def downgrade() -> None:
    op.execute("DROP TABLE operator_idempotency_keys, operator_keys")
