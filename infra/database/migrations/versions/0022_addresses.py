"""Addresses of several spellings, and phone numbers with an extension.

`email` holds the key of an address (`infra/emails.py`) wherever the key differs from the address in lower case;
`email_as_sent` then holds the address. The unique index on `email_key`, the lower case of `email`, therefore compares
keys, and the release before runs unchanged: for these few consumers it shows the key. `consumers migrate` changes the
rows of before, except a row whose key another consumer has.

Revision ID: 0022
"""

from alembic import op

revision = "0022"
down_revision = "0021"

# The key follows from the address. If a statement changes only the key, it is of the release before.
RESET = """
    CREATE FUNCTION consumers_reset_address() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.email_as_sent := NULL;
        RETURN NEW;
    END $$"""
# Before `consumers_version`, which compares the row: triggers run in the order of their names.
TRIGGER = """
    CREATE TRIGGER consumers_reset_address BEFORE UPDATE ON consumers FOR EACH ROW
        WHEN (NEW.email_as_sent = OLD.email_as_sent AND NEW.email IS DISTINCT FROM OLD.email)
        EXECUTE FUNCTION consumers_reset_address()"""


def upgrade() -> None:
    op.execute("ALTER TABLE consumers ADD COLUMN email_as_sent text")
    # As in migration 0013: no values of consumers in the planner's statistics.
    op.execute("ALTER TABLE consumers ALTER COLUMN email_as_sent SET STATISTICS 0")
    # The rows of before have shorter values, so nothing has to be validated under the lock.
    op.execute("""
        ALTER TABLE consumers
            ADD CONSTRAINT consumers_email_as_sent_check CHECK (length(email_as_sent) <= 254) NOT VALID,
            DROP CONSTRAINT consumers_phone_check,
            ADD CONSTRAINT consumers_phone_check CHECK (length(phone) <= 40) NOT VALID""")
    op.execute(RESET)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER consumers_reset_address ON consumers")
    op.execute("DROP FUNCTION consumers_reset_address")
    op.execute("UPDATE consumers SET email = email_as_sent, email_as_sent = NULL WHERE email_as_sent IS NOT NULL")
    op.execute("UPDATE consumers SET phone = left(phone, 32) WHERE length(phone) > 32")
    op.execute("""
        ALTER TABLE consumers DROP COLUMN email_as_sent,
            DROP CONSTRAINT consumers_phone_check,
            ADD CONSTRAINT consumers_phone_check CHECK (length(phone) <= 32)""")
