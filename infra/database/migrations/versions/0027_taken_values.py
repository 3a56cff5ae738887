"""A function that runs an UPDATE, and returns no rows if a unique value is taken.

PostgreSQL writes an error of a statement to its log, with the taken value in DETAIL. An error that a function catches
is not written.

Revision ID: 0027
"""

from alembic import op

revision = "0027"
down_revision = "0026"

# The statement is text, so that the function does not depend on the columns of a release. `ON CONFLICT DO NOTHING` does
# the same for an INSERT.
FUNCTION = """
    CREATE FUNCTION unless_taken(
        kind anyelement, statement text, environment_id int, rows json, ids text[], with_metadata text[] DEFAULT '{}'
    ) RETURNS SETOF anyelement LANGUAGE plpgsql AS $$
    BEGIN
        RETURN QUERY EXECUTE statement USING environment_id, rows, ids, with_metadata;
    EXCEPTION WHEN unique_violation THEN
        RETURN;
    END $$"""


def upgrade() -> None:
    op.execute(FUNCTION)


def downgrade() -> None:
    op.execute("DROP FUNCTION unless_taken")
