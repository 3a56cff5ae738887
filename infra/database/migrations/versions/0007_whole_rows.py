"""The trigger `consumers_version` compares whole rows, so that a change of a column added later is recorded too.

Revision ID: 0007
"""

from alembic import op

revision = "0007"
down_revision = "0006"

# The version and the time of NEW are set back before the comparison, because the function itself decides on both. A
# stored generated column of NEW is NULL until the BEFORE triggers have run, so the stored value is put in; PostgreSQL
# computes the column afterwards. A generated column that is missing here costs a version for each update that changes
# nothing; no change is lost.
# Values are compared as they are stored (`*<>`): the numbers 1.0 and 1.00 in `metadata` are equal, but are shown
# differently. A recounted total keeps its scale for the same reason: 0 and 0.0000 are shown alike.
FUNCTION = """
    CREATE OR REPLACE FUNCTION consumers_version() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        requested_version bigint := NEW.version;
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
        NEW.email_key := OLD.email_key;
        IF requested_version > OLD.version OR {differs} THEN
            NEW.version := greatest(OLD.version + 1, requested_version);
            NEW.updated_at := public.present();
        END IF;
        RETURN NEW;
    END $$"""
LISTED_COLUMNS = """
    (NEW.email, NEW.phone, NEW.full_name, NEW.external_id,
     NEW.total_orders, NEW.total_order_value, NEW.last_order_at, NEW.created_at) IS DISTINCT FROM
    (OLD.email, OLD.phone, OLD.full_name, OLD.external_id,
     OLD.total_orders, OLD.total_order_value, OLD.last_order_at, OLD.created_at) OR
    ROW(NEW.metadata)::record *<> ROW(OLD.metadata)::record"""


def upgrade() -> None:
    op.execute(FUNCTION.format(differs="NEW *<> OLD"))
    op.execute("ALTER FUNCTION consumers_untold RENAME TO consumers_reset_totals")
    op.execute("ALTER TRIGGER consumers_untold ON consumers RENAME TO consumers_reset_totals")


def downgrade() -> None:
    op.execute("ALTER TRIGGER consumers_reset_totals ON consumers RENAME TO consumers_untold")
    op.execute("ALTER FUNCTION consumers_reset_totals RENAME TO consumers_untold")
    op.execute(FUNCTION.format(differs=LISTED_COLUMNS))
