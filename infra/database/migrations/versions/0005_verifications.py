"""Verifications, and the differences found.

Revision ID: 0005
"""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # A worker executes a run for a moment at a time; the next worker continues at `position`. Each worker that takes the
    # run increments `claim`, so a worker that was considered dead notices the loss of its claim and writes nothing.
    op.execute("""
        CREATE TABLE verifications (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            kind text NOT NULL CHECK (kind IN ('verify', 'repair', 'watch')),
            environment_id int REFERENCES environments,
            -- The run with the differences to repair; null: compare, and repair the differences found.
            repairs bigint REFERENCES verifications ON DELETE CASCADE,
            state text NOT NULL DEFAULT 'requested' CHECK (state IN ('requested', 'running', 'done', 'failed')),
            index_name text,
            total bigint,
            position text COLLATE "C" NOT NULL DEFAULT '',
            compared bigint NOT NULL DEFAULT 0,
            in_flight bigint NOT NULL DEFAULT 0,
            causes jsonb NOT NULL DEFAULT '{}',
            mended bigint NOT NULL DEFAULT 0,
            claim int NOT NULL DEFAULT 0,
            heartbeat_at timestamptz,
            attempts int NOT NULL DEFAULT 0,
            error text,
            requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            started_at timestamptz,
            finished_at timestamptz
        )""")
    op.execute("CREATE INDEX verifications_open ON verifications (id) WHERE finished_at IS NULL")
    op.execute("CREATE UNIQUE INDEX one_watch ON verifications (kind) WHERE kind = 'watch' AND finished_at IS NULL")
    # `document_id` is text of any form, because documents written by hand may have any id.
    op.execute("""
        CREATE TABLE differences (
            verification_id bigint NOT NULL REFERENCES verifications ON DELETE CASCADE,
            document_id text COLLATE "C" NOT NULL,
            cause text NOT NULL,
            environment_id int,
            database_version bigint,
            index_version bigint,
            found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (verification_id, document_id)
        )""")


def downgrade() -> None:
    op.execute("DROP TABLE differences")
    op.execute("DROP TABLE verifications")
