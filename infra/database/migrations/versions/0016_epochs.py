"""Epochs of the database: a restored, replaced or promoted server begins a new epoch, with higher versions.

A transaction number, a sequence value and a version are unique only in one history of the database. The table holds a
row for each history, and `current_epoch` compares the newest row with the server. The triggers on `consumers` call it
before each statement, so the first write on a new server begins the epoch, whatever client sends it.

Revision ID: 0016
"""

from alembic import op

revision = "0016"
down_revision = "0015"

EPOCHS = """
    CREATE TABLE epochs (
        number int PRIMARY KEY,
        -- Two servers promoted from one primary both begin the next number, but with different ids.
        id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
        reason text NOT NULL CHECK (reason IN ('first', 'restart', 'timeline', 'restore')),
        -- The server that began the epoch, and the OID of this table: `pg_restore` creates the table again.
        -- System identifier and OID of the database.
        database text NOT NULL,
        table_oid oid NOT NULL,
        timeline int NOT NULL,
        server_started_at timestamptz NOT NULL,
        -- A process knew this epoch, which is not in this history.
        supersedes uuid,
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        -- The last position in the WAL that this epoch has in common with the epoch before; 0/0: none.
        fork_lsn pg_lsn NOT NULL,
        -- Versions of this epoch begin here, above all versions of earlier epochs.
        version_floor bigint NOT NULL,
        -- The row of `generations`, with the position of the index, as last recorded before the fork.
        live_generation jsonb,
        began_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )"""

# The system identifier and the OID cannot change within a session, and are read from a file and from a catalogue.
# The start time tells apart the servers that a restore without a new timeline makes: a base backup started without
# `recovery.signal`, or a copy of the data folder.
SERVER = """
    CREATE VIEW epoch_server AS
    SELECT c.system_identifier, d.oid AS database_oid,
        ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int AS timeline,
        pg_postmaster_start_time() AS started_at
    FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()"""
KEPT_IN_SESSION = """
    CREATE FUNCTION epoch_database() RETURNS text LANGUAGE plpgsql AS $$
    DECLARE
        known text := nullif(current_setting('consumers.database', true), '');
    BEGIN
        IF known IS NULL THEN
            SELECT set_config('consumers.database', system_identifier || '/' || database_oid, false) INTO known
            FROM public.epoch_server;
        END IF;
        RETURN known;
    END $$"""

# The query has no parameters, so its plan is kept whatever `plan_cache_mode` is.
MATCHING = """
        SELECT e.* INTO current FROM public.epochs e WHERE e.table_oid = e.tableoid ORDER BY e.number DESC LIMIT 1;
        IF current.timeline = ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
            AND current.server_started_at = pg_postmaster_start_time()
            AND current.database = public.epoch_database()
            AND (seen IS NULL OR seen = current.id
                OR EXISTS (SELECT FROM public.epochs k WHERE seen IN (k.id, k.supersedes)))
        THEN
            RETURN current;
        END IF;"""

# A standby cannot begin an epoch, and has no timeline of its own.
CURRENT = f"""
    CREATE FUNCTION current_epoch(seen uuid DEFAULT NULL) RETURNS epochs LANGUAGE plpgsql AS $$
    DECLARE
        current public.epochs;
    BEGIN
        IF pg_is_in_recovery() THEN
            SELECT * INTO current FROM public.epochs ORDER BY number DESC LIMIT 1;
            RETURN current;
        END IF;
        {MATCHING}
        RETURN public.begin_epoch(seen);
    END $$"""

# `pg_last_wal_replay_lsn` stays at the end of the recovery: after a promotion this is the fork. Without a recovery the
# server was shut down, and the last checkpoint before the start was the shutdown's. A server with a new timeline, but
# without a recovery, was restarted since its promotion, and nothing tells the fork: no token of before is reached.
# The floor leaves room for a million consumers of a lost history. Its random part makes versions of two servers that
# were promoted from one primary different.
BEGIN = f"""
    CREATE FUNCTION begin_epoch(seen uuid) RETURNS epochs LANGUAGE plpgsql
        SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        previous public.epochs;
        current public.epochs;
        server public.epoch_server;
    BEGIN
        -- Waits until a concurrent session has begun the epoch.
        LOCK TABLE public.epochs IN SHARE ROW EXCLUSIVE MODE;
        {MATCHING}
        SELECT * INTO previous FROM public.epochs ORDER BY number DESC LIMIT 1;
        SELECT * INTO server FROM public.epoch_server;
        current.number := coalesce(previous.number, 0) + 1;
        current.database := public.epoch_database();
        current.reason := CASE
            WHEN previous.number IS NULL THEN 'first'
            WHEN previous.database <> current.database OR previous.table_oid <> 'public.epochs'::regclass THEN 'restore'
            WHEN previous.timeline <> server.timeline THEN 'timeline'
            WHEN previous.server_started_at <> server.started_at THEN 'restart'
            ELSE 'restore' END;
        current.fork_lsn := CASE current.reason
            WHEN 'timeline' THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
            WHEN 'restart' THEN coalesce(
                pg_last_wal_replay_lsn(),
                (SELECT checkpoint_lsn FROM pg_control_checkpoint() WHERE checkpoint_time <= server.started_at),
                pg_current_wal_insert_lsn())
            ELSE '0/0' END;
        current.version_floor := CASE WHEN current.number = 1 THEN 0 ELSE
            greatest(previous.version_floor, (SELECT last_value FROM public.consumer_first_version))
            + (1::bigint << 40) + (random() * (1::bigint << 39))::bigint END;
        INSERT INTO public.epochs (number, reason, database, table_oid, timeline, server_started_at, supersedes,
            fork_lsn, version_floor, live_generation)
        SELECT current.number, current.reason, current.database, 'public.epochs'::regclass, server.timeline,
            server.started_at, seen, current.fork_lsn, current.version_floor,
            (SELECT to_jsonb(g) FROM public.generations g WHERE g.state = 'live')
        RETURNING * INTO current;
        IF current.number > 1 THEN
            PERFORM setval('public.consumer_first_version', current.version_floor);
            INSERT INTO public.verifications (kind, epoch) VALUES ('fork', current.number);
        END IF;
        RETURN current;
    END $$"""

# Whether the transaction of a token of an earlier epoch is part of this history. A WAL record of the transaction lies
# before `lsn`. Before the fork, so does the number, and its status is the status at the fork. A token without a position
# was issued before the first epoch, or by the release before.
SURVIVES = """
    CREATE FUNCTION survives(token_epoch uuid, token_xid xid8, token_lsn pg_lsn) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE
        first public.epochs;
    BEGIN
        IF token_epoch IS NULL THEN
            SELECT * INTO first FROM public.epochs WHERE number = 1;
            IF token_xid >= first.xid THEN
                RETURN false;
            END IF;
            token_epoch := first.id;
            token_lsn := '0/1';
        END IF;
        RETURN token_xid < pg_snapshot_xmax(pg_current_snapshot())
            AND EXISTS (
                SELECT FROM public.epochs e WHERE e.id = token_epoch
                    AND token_lsn <= ALL (SELECT n.fork_lsn FROM public.epochs n WHERE n.number > e.number))
            AND coalesce(pg_xact_status(token_xid) = 'committed', false);
    END $$"""

TRIGGER = """
    CREATE FUNCTION consumers_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        floor text := (public.current_epoch()).version_floor;
    BEGIN
        floor := set_config('consumers.version_floor', floor, true);
        RETURN NULL;
    END $$"""

# As in migration 0007, with the floor.
VERSION = """
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
        IF requested_version > OLD.version OR NEW *<> OLD THEN
            NEW.version := greatest(OLD.version + 1, requested_version{floor});
            NEW.updated_at := public.present();
        END IF;
        RETURN NEW;
    END $$"""
OUTBOX = """
    CREATE OR REPLACE FUNCTION consumers_to_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        lane text := CASE current_setting('consumers.lane', true) WHEN 'bulk' THEN 'bulk' ELSE 'live' END;
        request text := nullif(current_setting('consumers.request_id', true), '');
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO public.outbox (environment_id, consumer_id, version, lane, request_id)
            SELECT n.environment_id, n.id, n.version, lane, request FROM new_rows n;
        ELSIF TG_OP = 'UPDATE' THEN
            INSERT INTO public.outbox (environment_id, consumer_id, version, lane, request_id)
            SELECT n.environment_id, n.id, n.version, lane, request
            FROM new_rows n JOIN old_rows o ON o.id = n.id WHERE n.version <> o.version;
        ELSE
            INSERT INTO public.outbox (environment_id, consumer_id, version, lane, request_id)
            SELECT o.environment_id, o.id, {deleted}, lane, request FROM old_rows o;
        END IF;
        RETURN NULL;
    END $$"""
FLOOR = "nullif(current_setting('consumers.version_floor', true), '')::bigint"
KINDS = "'verify', 'repair', 'watch', 'reindex'"


def upgrade() -> None:
    op.execute(EPOCHS)
    op.execute("ALTER TABLE verifications DROP CONSTRAINT verifications_kind_check")
    op.execute(f"""
        ALTER TABLE verifications
            ADD CONSTRAINT verifications_kind_check CHECK (kind IN ({KINDS}, 'fork')),
            -- For kind `fork`: the epoch that began at the fork.
            ADD COLUMN epoch int REFERENCES epochs,
            ADD CONSTRAINT verifications_epoch_check CHECK ((kind = 'fork') = (epoch IS NOT NULL))""")
    for statement in (SERVER, KEPT_IN_SESSION, BEGIN, CURRENT, SURVIVES, TRIGGER):
        op.execute(statement)
    op.execute(VERSION.format(floor=f", {FLOOR}"))
    op.execute(OUTBOX.format(deleted=f"greatest(o.version + 1, {FLOOR})"))
    # Part of the token of a stored answer, beside the number in `headers`, which the release before reads.
    for table in ("idempotency_keys", "operator_idempotency_keys"):
        op.execute(f"ALTER TABLE {table} ADD COLUMN epoch uuid, ADD COLUMN lsn pg_lsn")
    # The release before refuses tokens with an epoch. If its processes may be running, tokens have none for a day.
    op.execute("ALTER TABLE sealing_keys ADD COLUMN short_tokens_until moment")
    op.execute("""
        UPDATE sealing_keys SET short_tokens_until = now() + interval '24 hours'
        WHERE EXISTS (SELECT FROM api_keys)""")
    op.execute("""
        CREATE TRIGGER consumers_epoch BEFORE INSERT OR UPDATE OR DELETE ON consumers
            FOR EACH STATEMENT EXECUTE FUNCTION consumers_epoch()""")


def downgrade() -> None:
    op.execute("DROP TRIGGER consumers_epoch ON consumers")
    op.execute(OUTBOX.format(deleted="o.version + 1"))
    op.execute(VERSION.format(floor=""))
    op.execute("DROP FUNCTION consumers_epoch, survives, current_epoch, begin_epoch, epoch_database")
    op.execute("DROP VIEW epoch_server")
    op.execute("DELETE FROM verifications WHERE kind = 'fork'")
    op.execute(f"""
        ALTER TABLE verifications DROP COLUMN epoch, DROP CONSTRAINT verifications_kind_check,
            ADD CONSTRAINT verifications_kind_check CHECK (kind IN ({KINDS}))""")
    op.execute("DROP TABLE epochs")
    for table in ("idempotency_keys", "operator_idempotency_keys"):
        op.execute(f"ALTER TABLE {table} DROP COLUMN epoch, DROP COLUMN lsn")
    op.execute("ALTER TABLE sealing_keys DROP COLUMN short_tokens_until")
