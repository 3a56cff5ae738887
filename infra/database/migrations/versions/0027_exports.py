"""Exports for analysts, and the attributes of consumers that an organization has declared for them.

Revision ID: 0027
"""

from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    # A list of paths in `metadata` with types: [{"path": "country", "type": "text"}].
    op.execute("""
        ALTER TABLE organizations ADD COLUMN attributes jsonb NOT NULL DEFAULT '[]'
            CHECK (jsonb_typeof(attributes) = 'array')""")
    # The rows are also the record of who exported what, so they outlive the files. `key_id` is null if a command of an
    # operator requested the export; it is no foreign key, because a key may be deleted first.
    op.execute("""
        CREATE TABLE exports (
            id text COLLATE "C" PRIMARY KEY DEFAULT new_id('exp_'),
            environment_id int NOT NULL REFERENCES environments,
            key_id text COLLATE "C",
            tables text[] NOT NULL,
            format text NOT NULL CHECK (format IN ('parquet', 'csv')),
            personal boolean NOT NULL,
            state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed', 'expired')),
            -- Each worker that takes the export increments `claim`, and writes files of its own: a worker that was
            -- considered dead changes neither the row nor the files of its successor.
            claim int NOT NULL DEFAULT 0,
            attempts int NOT NULL DEFAULT 0,
            heartbeat_at timestamptz,
            retry_at timestamptz,
            progress real NOT NULL DEFAULT 0,
            rows_read bigint NOT NULL DEFAULT 0,
            -- The snapshot: its time, and a transaction that began after it.
            as_of moment,
            xid text,
            epoch uuid,
            lsn pg_lsn,
            members_as_of moment,
            sums jsonb NOT NULL DEFAULT '{}',
            files jsonb NOT NULL DEFAULT '[]',
            spool_bytes bigint,
            error text,
            requested_at moment NOT NULL DEFAULT present(),
            started_at moment,
            finished_at moment,
            expires_at moment
        )""")
    op.execute("CREATE INDEX exports_unfinished ON exports (requested_at) WHERE state IN ('queued', 'running')")
    op.execute("CREATE INDEX exports_newest ON exports (environment_id, requested_at DESC, id DESC)")


def downgrade() -> None:
    op.execute("DROP TABLE exports")
    op.execute("ALTER TABLE organizations DROP COLUMN attributes")
