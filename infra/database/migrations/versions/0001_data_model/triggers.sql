-- Tables are named with their schema, because a temporary table of the same name would receive the change instead.

-- Raise a consumer's version whenever a value shown to clients changes, even if the statement sets the version. A
-- statement may raise the version further (memberships, an index that is ahead), but never lower it.
CREATE FUNCTION consumers_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id <> OLD.id OR NEW.environment_id <> OLD.environment_id THEN
        RAISE EXCEPTION 'a consumer keeps its id and its environment' USING ERRCODE = 'restrict_violation';
    END IF;
    -- Only the orders' trigger changes totals. A statement that tries has them counted anew.
    IF pg_trigger_depth() = 1 AND (NEW.total_orders, NEW.total_order_value, NEW.last_order_at)
        IS DISTINCT FROM (OLD.total_orders, OLD.total_order_value, OLD.last_order_at)
    THEN
        SELECT count(*), coalesce(sum(o.value), 0), max(o.placed_at)
        INTO NEW.total_orders, NEW.total_order_value, NEW.last_order_at
        FROM public.orders o WHERE o.consumer_id = NEW.id AND o.counts;
    END IF;
    -- Metadata is compared as it is stored: 1.0 equals 1.00, but readers see the difference.
    IF NEW.version > OLD.version OR
       (NEW.email, NEW.phone, NEW.full_name, NEW.external_id,
        NEW.total_orders, NEW.total_order_value, NEW.last_order_at, NEW.created_at) IS DISTINCT FROM
       (OLD.email, OLD.phone, OLD.full_name, OLD.external_id,
        OLD.total_orders, OLD.total_order_value, OLD.last_order_at, OLD.created_at) OR
       ROW(NEW.metadata)::record *<> ROW(OLD.metadata)::record
    THEN
        NEW.version := greatest(OLD.version + 1, NEW.version);
        NEW.updated_at := public.present();
    ELSE
        NEW.version := OLD.version;
        NEW.updated_at := OLD.updated_at;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER consumers_version BEFORE UPDATE ON consumers FOR EACH ROW EXECUTE FUNCTION consumers_version();

CREATE FUNCTION consumers_untold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.total_orders := 0;
    NEW.total_order_value := 0;
    NEW.last_order_at := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER consumers_untold BEFORE INSERT ON consumers FOR EACH ROW
    WHEN (NEW.total_orders <> 0 OR NEW.total_order_value <> 0 OR NEW.last_order_at IS NOT NULL)
    EXECUTE FUNCTION consumers_untold();

-- Append-only: an upserted "dirty" row would make a writer wait for the indexer that holds it.
CREATE FUNCTION consumers_to_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
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
        SELECT o.environment_id, o.id, o.version + 1, lane, request FROM old_rows o;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER consumers_inserted AFTER INSERT ON consumers
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION consumers_to_outbox();
CREATE TRIGGER consumers_updated AFTER UPDATE ON consumers
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION consumers_to_outbox();
CREATE TRIGGER consumers_deleted AFTER DELETE ON consumers
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION consumers_to_outbox();

CREATE FUNCTION orders_touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id <> OLD.id OR NEW.environment_id <> OLD.environment_id THEN
        RAISE EXCEPTION 'an order keeps its id and its environment' USING ERRCODE = 'restrict_violation';
    END IF;
    NEW.updated_at := public.present();
    RETURN NEW;
END $$;
CREATE TRIGGER orders_touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION orders_touch();

-- Totals change in the transaction of the order: number and value by the difference, the newest order by an index. The
-- first statement locks the consumers, the second statement changes them. The snapshot of the second statement includes
-- the commits the lock waited for; a single statement would read the newest order from an older snapshot.
CREATE FUNCTION orders_to_totals() RETURNS trigger LANGUAGE plpgsql AS $$
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
            (SELECT consumer_id, -count(*) AS n, -sum(value) AS v FROM old_rows WHERE counts GROUP BY consumer_id) d;
    ELSE
        SELECT array_agg(d.consumer_id), array_agg(d.n), array_agg(d.v) INTO ids, numbers, amounts FROM (
            SELECT m.consumer_id, sum(m.n) AS n, sum(m.v) AS v
            FROM old_rows o JOIN new_rows n ON n.id = o.id
            CROSS JOIN LATERAL (VALUES (o.consumer_id, -o.counts::int, -o.value),
                                       (n.consumer_id, n.counts::int, n.value)) AS m (consumer_id, n, v)
            WHERE (o.consumer_id, o.counts, o.value, o.placed_at)
                IS DISTINCT FROM (n.consumer_id, n.counts, n.value, n.placed_at)
            GROUP BY m.consumer_id) d;
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
END $$;
CREATE TRIGGER orders_inserted AFTER INSERT ON orders
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION orders_to_totals();
CREATE TRIGGER orders_updated AFTER UPDATE ON orders
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION orders_to_totals();
CREATE TRIGGER orders_deleted AFTER DELETE ON orders
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION orders_to_totals();

-- A stored membership is part of the consumer's document, so a change of a membership raises the consumer's version.
CREATE FUNCTION members_to_consumers() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ids text[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(DISTINCT consumer_id) INTO ids FROM new_rows;
    ELSE
        SELECT array_agg(DISTINCT consumer_id) INTO ids FROM old_rows;
    END IF;
    PERFORM FROM public.consumers WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE public.consumers SET version = version + 1 WHERE id = ANY (ids);
    RETURN NULL;
END $$;
CREATE TRIGGER members_inserted AFTER INSERT ON audience_members
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION members_to_consumers();
CREATE TRIGGER members_deleted AFTER DELETE ON audience_members
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION members_to_consumers();

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: the search index would not notice. %', TG_OP, TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER members_fixed BEFORE UPDATE ON audience_members
    FOR EACH STATEMENT EXECUTE FUNCTION refuse('Delete the membership and insert another.');
CREATE TRIGGER consumers_truncate BEFORE TRUNCATE ON consumers EXECUTE FUNCTION refuse('Use DELETE.');
CREATE TRIGGER orders_truncate BEFORE TRUNCATE ON orders EXECUTE FUNCTION refuse('Use DELETE.');
CREATE TRIGGER audiences_truncate BEFORE TRUNCATE ON audiences EXECUTE FUNCTION refuse('Use DELETE.');
CREATE TRIGGER members_truncate BEFORE TRUNCATE ON audience_members EXECUTE FUNCTION refuse('Use DELETE.');
CREATE TRIGGER outbox_truncate BEFORE TRUNCATE ON outbox EXECUTE FUNCTION refuse('Its rows are changes on their way.');

CREATE FUNCTION audiences_touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := public.present();
    RETURN NEW;
END $$;
CREATE TRIGGER audiences_touch BEFORE UPDATE ON audiences FOR EACH ROW EXECUTE FUNCTION audiences_touch();
