"""A change of a consumer keeps the metadata that is stored out of line.

The trigger `consumers_version` compared whole rows. For the comparison PL/pgSQL loads values that are stored out of line
into the row, and PostgreSQL then compressed and stored the loaded metadata again, with each change of the consumer.

Revision ID: 0024
"""

from alembic import op

revision = "0024"
down_revision = "0023"

# As in migration 0016, with a copy for the comparison. OLD is not stored, so it needs no copy.
VERSION = """
    CREATE OR REPLACE FUNCTION consumers_version() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        requested_version bigint := NEW.version;{declared}
    BEGIN
        IF NEW.id <> OLD.id OR NEW.environment_id <> OLD.environment_id THEN
            RAISE EXCEPTION 'a consumer keeps its id and its environment' USING ERRCODE = 'restrict_violation';
        END IF;
        -- Only the trigger on orders changes totals. If a statement sets them, they are counted again.
        IF pg_trigger_depth() = 1 AND (NEW.total_orders, NEW.total_order_value, NEW.last_order_at)
            IS DISTINCT FROM (OLD.total_orders, OLD.total_order_value, OLD.last_order_at)
        THEN
            SELECT count(*), coalesce(nullif(coalesce(sum(o.value), 0), OLD.total_order_value), OLD.total_order_value),
                max(o.placed_at)
            INTO NEW.total_orders, NEW.total_order_value, NEW.last_order_at
            FROM public.orders o WHERE o.consumer_id = NEW.id AND o.counts;
        END IF;
        NEW.version := OLD.version;
        NEW.updated_at := OLD.updated_at;
        NEW.email_key := OLD.email_key;{copied}
        IF requested_version > OLD.version OR {compared} *<> OLD THEN
            NEW.version := greatest(OLD.version + 1, requested_version,
                nullif(current_setting('consumers.version_floor', true), '')::bigint);
            NEW.updated_at := public.present();
        END IF;
        RETURN NEW;
    END $$"""
DECLARED = """
        changed record;"""
COPIED = """
        -- The comparison loads values that are stored out of line into its rows. Loaded values of NEW would be stored again.
        changed := NEW;"""


def upgrade() -> None:
    op.execute(VERSION.format(declared=DECLARED, copied=COPIED, compared="changed"))


def downgrade() -> None:
    op.execute(VERSION.format(declared="", copied="", compared="NEW"))
