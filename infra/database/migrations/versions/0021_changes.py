"""The feed of changes: a row for each consumer or order that a transaction changed.

The triggers write the rows in the change's own transaction. The rows are kept in partitions by week, and `keep_changes`
adds and drops partitions. The present snapshot is recorded each minute, so that a reader can begin at an earlier time.

Revision ID: 0021
"""

from alembic import op

revision = "0021"
down_revision = "0020"

CHANGES = """
    CREATE TABLE changes (
        environment_id int NOT NULL,
        resource text NOT NULL,
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        object_id text COLLATE "C" NOT NULL,
        -- created, updated or deleted
        kind text NOT NULL,
        at moment NOT NULL DEFAULT present(),
        -- Tells the rows of a new epoch, whose transaction numbers may repeat numbers of lost transactions.
        lsn pg_lsn NOT NULL DEFAULT pg_current_wal_insert_lsn()
    ) PARTITION BY RANGE (at)"""
INDEX = "CREATE INDEX changes_in_order ON changes (environment_id, resource, xid, object_id)"
# If no process adds partitions, the rows go here, and no write fails.
REMAINDER = "CREATE TABLE changes_without_week PARTITION OF changes DEFAULT"
SNAPSHOTS = """
    CREATE TABLE change_snapshots (
        at moment PRIMARY KEY DEFAULT present(),
        -- The transactions that were visible at this time.
        snapshot pg_snapshot NOT NULL,
        epoch uuid NOT NULL,
        lsn pg_lsn NOT NULL
    )"""

FLOOR = "nullif(current_setting('consumers.version_floor', true), '')::bigint"
OUTBOX_COLUMNS = "environment_id, consumer_id, version, lane, request_id"
CHANGE_COLUMNS = "environment_id, resource, object_id, kind"
# A consumer keeps its id and its environment. In the order of ids, because EXCEPT returns the order of a hash.
CHANGED = "SELECT environment_id, id, version FROM new_rows EXCEPT SELECT environment_id, id, version FROM old_rows"
CONSUMERS = f"""
    CREATE OR REPLACE FUNCTION consumers_to_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        lane text := CASE current_setting('consumers.lane', true) WHEN 'bulk' THEN 'bulk' ELSE 'live' END;
        request text := nullif(current_setting('consumers.request_id', true), '');
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO public.outbox ({OUTBOX_COLUMNS})
            SELECT n.environment_id, n.id, n.version, lane, request FROM new_rows n;
            {{inserted}}
        ELSIF TG_OP = 'UPDATE' THEN
            {{updated}}
        ELSE
            INSERT INTO public.outbox ({OUTBOX_COLUMNS})
            SELECT o.environment_id, o.id, greatest(o.version + 1, {FLOOR}), lane, request FROM old_rows o;
            {{deleted}}
        END IF;
        RETURN NULL;
    END $$"""
CONSUMERS_BEFORE = CONSUMERS.format(
    inserted="",
    updated=f"""INSERT INTO public.outbox ({OUTBOX_COLUMNS})
            SELECT n.environment_id, n.id, n.version, lane, request FROM ({CHANGED}) n ORDER BY n.id;""",
    deleted="",
)
CONSUMERS_AFTER = CONSUMERS.format(
    inserted=f"""INSERT INTO public.changes ({CHANGE_COLUMNS})
            SELECT n.environment_id, 'consumers', n.id, 'created' FROM new_rows n;""",
    updated=f"""WITH changed AS MATERIALIZED ({CHANGED} ORDER BY id), queued AS (
                INSERT INTO public.outbox ({OUTBOX_COLUMNS})
                SELECT c.environment_id, c.id, c.version, lane, request FROM changed c)
            INSERT INTO public.changes ({CHANGE_COLUMNS})
            SELECT c.environment_id, 'consumers', c.id, 'updated' FROM changed c;""",
    deleted=f"""INSERT INTO public.changes ({CHANGE_COLUMNS})
            SELECT o.environment_id, 'consumers', o.id, 'deleted' FROM old_rows o;""",
)
ORDERS = f"""
    CREATE FUNCTION orders_to_changes() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO public.changes ({CHANGE_COLUMNS})
            SELECT n.environment_id, 'orders', n.id, 'created' FROM new_rows n;
        ELSIF TG_OP = 'UPDATE' THEN
            INSERT INTO public.changes ({CHANGE_COLUMNS})
            SELECT n.environment_id, 'orders', n.id, 'updated'
            FROM (SELECT * FROM new_rows EXCEPT SELECT * FROM old_rows) n;
        ELSE
            INSERT INTO public.changes ({CHANGE_COLUMNS})
            SELECT o.environment_id, 'orders', o.id, 'deleted' FROM old_rows o;
        END IF;
        RETURN NULL;
    END $$"""
TRANSITIONS = {
    "INSERT": "NEW TABLE AS new_rows",
    "UPDATE": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "DELETE": "OLD TABLE AS old_rows",
}

# The owner of the tables adds and drops partitions, whatever role calls. A week begins on Monday, UTC. A write waits
# for a dropped or added partition, so the function gives up at once if a transaction uses the table for long.
KEEP = """
    CREATE FUNCTION keep_changes(days int) RETURNS void LANGUAGE plpgsql
        SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '100ms' AS $$
    DECLARE
        oldest timestamptz := now() - make_interval(days => days);
        begins timestamptz;
        partition text;
    BEGIN
        IF EXISTS (SELECT FROM public.epochs)
            AND NOT EXISTS (SELECT FROM public.change_snapshots WHERE at > now() - interval '1 minute')
        THEN
            INSERT INTO public.change_snapshots (snapshot, epoch, lsn)
            SELECT pg_current_snapshot(), e.id, pg_current_wal_flush_lsn() FROM public.current_epoch() e
            ON CONFLICT DO NOTHING;
        END IF;
        DELETE FROM public.change_snapshots WHERE at < oldest;
        DELETE FROM public.changes_without_week WHERE at < oldest;
        BEGIN
            FOR weeks IN 0..3 LOOP
                begins := date_trunc('week', now(), 'UTC') + make_interval(days => 7 * weeks);
                partition := 'changes_' || to_char(begins AT TIME ZONE 'UTC', 'YYYYMMDD');
                IF to_regclass('public.' || partition) IS NULL AND NOT EXISTS (
                    SELECT FROM public.changes_without_week WHERE at >= begins AND at < begins + interval '7 days')
                THEN
                    EXECUTE format('CREATE TABLE public.%I PARTITION OF public.changes FOR VALUES FROM (%L) TO (%L)',
                        partition, begins, begins + interval '7 days');
                END IF;
            END LOOP;
            FOR partition IN
                SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'public.changes'::regclass AND c.relname ~ '^changes_[0-9]{8}$'
                    AND to_date(right(c.relname, 8), 'YYYYMMDD') + 8 < oldest
            LOOP
                EXECUTE format('DROP TABLE public.%I', partition);
            END LOOP;
        EXCEPTION WHEN lock_not_available OR duplicate_table THEN
            NULL;  -- the next call continues
        END;
    END $$"""


def upgrade() -> None:
    for statement in (CHANGES, INDEX, REMAINDER, SNAPSHOTS, KEEP, ORDERS, CONSUMERS_AFTER):
        op.execute(statement)
    for event, transition in TRANSITIONS.items():
        op.execute(f"""
            CREATE TRIGGER orders_{event.lower()}_to_changes AFTER {event} ON orders REFERENCING {transition}
            FOR EACH STATEMENT EXECUTE FUNCTION orders_to_changes()""")
    op.execute("SELECT keep_changes(30)")


def downgrade() -> None:
    for event in TRANSITIONS:
        op.execute(f"DROP TRIGGER orders_{event.lower()}_to_changes ON orders")
    op.execute(CONSUMERS_BEFORE)
    op.execute("DROP FUNCTION orders_to_changes, keep_changes")
    op.execute("DROP TABLE changes, change_snapshots")
