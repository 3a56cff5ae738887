"""Triggers that compare the rows before and after a statement in linear time.

A session plans a statement of a trigger for the number of rows of its first call. After the change of a single row, a
join of the rows before and after a statement is a nested loop: a change of 10,000 rows took 10 seconds.

Revision ID: 0020
"""

from alembic import op

revision = "0020"
down_revision = "0019"

FLOOR = "nullif(current_setting('consumers.version_floor', true), '')::bigint"
OUTBOX = f"""
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
            SELECT n.environment_id, n.id, n.version, lane, request FROM {{changed}};
        ELSE
            INSERT INTO public.outbox (environment_id, consumer_id, version, lane, request_id)
            SELECT o.environment_id, o.id, greatest(o.version + 1, {FLOOR}), lane, request FROM old_rows o;
        END IF;
        RETURN NULL;
    END $$"""
OUTBOX_JOIN = "new_rows n JOIN old_rows o ON o.id = n.id WHERE n.version <> o.version"
# A consumer keeps its id and its environment. In the order of ids, because EXCEPT returns the order of a hash, and the
# drain then reads rows and replaces documents in random order: a fifth fewer changes per second.
OUTBOX_EXCEPT = """(
                SELECT environment_id, id, version FROM new_rows
                EXCEPT SELECT environment_id, id, version FROM old_rows) n ORDER BY n.id"""

TOTALS = """
    CREATE OR REPLACE FUNCTION orders_to_totals() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        ids text[];
        numbers bigint[];
        amounts numeric[];
    BEGIN
        IF TG_OP = 'INSERT' THEN
            SELECT array_agg(d.consumer_id), array_agg(d.n), array_agg(d.v) INTO ids, numbers, amounts FROM
                (SELECT consumer_id, count(*) AS n, sum(value) AS v FROM new_rows WHERE counts GROUP BY consumer_id) d;
        ELSIF TG_OP = 'DELETE' THEN
            SELECT array_agg(d.consumer_id), array_agg(d.n), array_agg(d.v) INTO ids, numbers, amounts FROM
                (SELECT consumer_id, -count(*) AS n, -sum(value) AS v FROM old_rows WHERE counts
                 GROUP BY consumer_id) d;
        ELSE
            SELECT array_agg(d.consumer_id), array_agg(d.n), array_agg(d.v) INTO ids, numbers, amounts FROM (
                SELECT m.consumer_id, sum(m.n) AS n, sum(m.v) AS v FROM {changed} GROUP BY m.consumer_id) d;
        END IF;
        IF ids IS NULL THEN
            RETURN NULL;
        END IF;
        PERFORM FROM public.consumers WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
        UPDATE public.consumers c SET
            total_orders = c.total_orders + d.n,
            total_order_value = c.total_order_value + d.v,
            last_order_at = (SELECT o.placed_at FROM public.orders o WHERE o.consumer_id = c.id AND o.counts
                             ORDER BY o.placed_at DESC LIMIT 1)
        FROM unnest(ids, numbers, amounts) AS d (id, n, v) WHERE c.id = d.id;
        RETURN NULL;
    END $$"""
TOTALS_JOIN = """old_rows o JOIN new_rows n ON n.id = o.id
                CROSS JOIN LATERAL (VALUES (o.consumer_id, -o.counts::int, -o.value),
                                           (n.consumer_id, n.counts::int, n.value)) AS m (consumer_id, n, v)
                WHERE (o.consumer_id, o.counts, o.value, o.placed_at)
                    IS DISTINCT FROM (n.consumer_id, n.counts, n.value, n.placed_at)"""
TOTALS_EXCEPT = """(
                    SELECT consumer_id, -counts::int AS n, -value AS v FROM (
                        SELECT id, consumer_id, counts, value, placed_at FROM old_rows
                        EXCEPT SELECT id, consumer_id, counts, value, placed_at FROM new_rows) o
                    UNION ALL
                    SELECT consumer_id, counts::int, value FROM (
                        SELECT id, consumer_id, counts, value, placed_at FROM new_rows
                        EXCEPT SELECT id, consumer_id, counts, value, placed_at FROM old_rows) n) m"""


def upgrade() -> None:
    op.execute(OUTBOX.format(changed=OUTBOX_EXCEPT))
    op.execute(TOTALS.format(changed=TOTALS_EXCEPT))


def downgrade() -> None:
    op.execute(OUTBOX.format(changed=OUTBOX_JOIN))
    op.execute(TOTALS.format(changed=TOTALS_JOIN))
