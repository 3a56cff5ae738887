"""Remove the filter of a finished reindex, because the text may hold personal data.

Revision ID: 0011
"""

from alembic import op

revision = "0011"
down_revision = "0010"

WITHOUT_FILTER = """scope - 'filter' || '{"hasFilter": true}'"""


def upgrade() -> None:
    # A trigger, because several statements end a run, also those of the release before.
    op.execute(f"""
        CREATE FUNCTION verifications_forget_filter() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.scope := NEW.{WITHOUT_FILTER};
            RETURN NEW;
        END $$""")
    op.execute("""
        CREATE TRIGGER verifications_forget_filter BEFORE UPDATE ON verifications FOR EACH ROW
            WHEN (NEW.finished_at IS NOT NULL AND NEW.scope ? 'filter')
            EXECUTE FUNCTION verifications_forget_filter()""")
    op.execute(f"UPDATE verifications SET scope = {WITHOUT_FILTER} WHERE finished_at IS NOT NULL AND scope ? 'filter'")


def downgrade() -> None:
    op.execute("DROP TRIGGER verifications_forget_filter ON verifications")
    op.execute("DROP FUNCTION verifications_forget_filter")
