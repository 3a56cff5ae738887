"""The floor of each lane of the outbox, indexes that do not lead through deleted rows, and autovacuum at size.

A held snapshot keeps deleted outbox rows, and their entries in the indexes. No scan may pass through them, so each scan
begins at the floor of the lane: every waiting row has a `seq` of at least the floor. Refused rows are not waiting. They
are few, and have indexes of their own.

Revision ID: 0018
"""

from alembic import op

revision = "0018"
down_revision = "0017"

REFUSED = "parked_at IS NOT NULL OR retry_at IS NOT NULL"
LARGE_TABLES = ("consumers", "orders", "audience_members", "idempotency_keys")


def upgrade() -> None:
    # Rows are added, and the highest counts. An updated row would itself have as many dead versions as moves.
    op.execute("CREATE TABLE outbox_floors (lane text NOT NULL, seq bigint NOT NULL, PRIMARY KEY (lane, seq))")
    # Serves the queries of the release before as well, because they filter by consumer first.
    op.execute("CREATE INDEX outbox_consumer_lane ON outbox (consumer_id, lane, seq)")
    op.execute("DROP INDEX outbox_consumer")
    # Begins with the transaction, so that no plan walks through the rows of an environment by this index.
    op.execute("CREATE INDEX outbox_transaction ON outbox (xid, environment_id)")
    op.execute("DROP INDEX outbox_tokens")
    op.execute(f"CREATE INDEX outbox_refused ON outbox (environment_id, created_at) WHERE {REFUSED}")
    op.execute(f"CREATE INDEX outbox_refused_consumer ON outbox (consumer_id) WHERE {REFUSED}")
    op.execute("CREATE INDEX outbox_retry ON outbox (lane, retry_at) WHERE parked_at IS NULL AND retry_at IS NOT NULL")
    # A row that waits again goes to the end of its lane, because the floor may have passed the row. The sequence is read
    # while the statement holds its lock on the table, as by every insert: `indexer/floors.py` relies on this order.
    op.execute("""
        CREATE FUNCTION outbox_requeue() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.seq := nextval('public.outbox_seq_seq');
            RETURN NEW;
        END $$""")
    op.execute(f"""
        CREATE TRIGGER outbox_requeue BEFORE UPDATE ON outbox FOR EACH ROW
            WHEN (NEW.parked_at IS NULL AND NEW.retry_at IS NULL AND (OLD.{REFUSED.replace("OR ", "OR OLD.")}))
            EXECUTE FUNCTION outbox_requeue()""")
    # By default a fifth of a table may be dead before it is vacuumed: twenty million rows of a hundred million.
    for table in LARGE_TABLES:
        op.execute(f"""
            ALTER TABLE {table} SET (
                autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05,
                autovacuum_analyze_scale_factor = 0.02)""")


def downgrade() -> None:
    for table in LARGE_TABLES:
        op.execute(f"""
            ALTER TABLE {table} RESET (
                autovacuum_vacuum_scale_factor, autovacuum_vacuum_insert_scale_factor,
                autovacuum_analyze_scale_factor)""")
    op.execute("DROP TRIGGER outbox_requeue ON outbox")
    op.execute("DROP FUNCTION outbox_requeue")
    op.execute("CREATE INDEX outbox_consumer ON outbox (consumer_id, version)")
    op.execute("CREATE INDEX outbox_tokens ON outbox (environment_id, lane, xid)")
    op.execute("DROP INDEX outbox_transaction, outbox_consumer_lane, outbox_refused, outbox_refused_consumer, outbox_retry")
    op.execute("DROP TABLE outbox_floors")
