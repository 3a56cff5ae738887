-- An id is a prefix and a ULID. The API makes the ids; the defaults below are for rows written by hand.
-- A UUIDv7 has a ULID's layout: 48 bits of milliseconds, then random bits that ascend within a session.
CREATE FUNCTION new_id(prefix text) RETURNS text LANGUAGE sql VOLATILE
RETURN prefix || (
    WITH bits AS MATERIALIZED (SELECT B'00' || ('x' || replace(uuidv7()::text, '-', ''))::bit(128) AS b)
    SELECT string_agg(
        substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', substring(b FROM i * 5 + 1 FOR 5)::bit(5)::int + 1, 1), '' ORDER BY i)
    FROM bits, generate_series(0, 25) AS i);

-- Times have milliseconds, truncated: rounding would turn …59.9996 into the next minute.
CREATE FUNCTION present() RETURNS timestamptz LANGUAGE sql VOLATILE
RETURN date_trunc('milliseconds', clock_timestamp());

-- Every stored time is in a range that every client can represent; 'infinity' is not allowed.
CREATE DOMAIN moment AS timestamptz(3) CHECK (VALUE BETWEEN '0001-01-02Z' AND '9999-12-30Z');

-- The value of an order: base × (amount − refunded) / amount, rounded half-even to 4 decimals; 0 if it does not count.
CREATE FUNCTION order_value(status text, amount numeric, refunded numeric, base numeric)
RETURNS numeric LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    units numeric := base * (amount - refunded) * 10000;
    whole numeric;
    twice_rest numeric;
BEGIN
    IF status NOT IN ('CREATED', 'COMPLETED') OR amount = 0 THEN
        RETURN 0;
    END IF;
    whole := div(units, amount);
    twice_rest := (units - whole * amount) * 2;
    IF twice_rest > amount OR (twice_rest = amount AND whole % 2 = 1) THEN
        whole := whole + 1;
    END IF;
    RETURN whole * 0.0001;
END $$;

CREATE TABLE organizations (
    id text COLLATE "C" PRIMARY KEY DEFAULT new_id('org_'),
    name text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 255),
    currency text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
    region text CHECK (region ~ '^[A-Z]{2}$'),
    -- Requests a minute; null: the service's default; 0: no limit.
    limit_reads int CHECK (limit_reads >= 0),
    limit_writes int CHECK (limit_writes >= 0),
    limit_batch int CHECK (limit_batch >= 0),
    created_at moment NOT NULL DEFAULT present()
);

CREATE TABLE environments (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    mode text NOT NULL CHECK (mode IN ('live', 'test')),
    created_at moment NOT NULL DEFAULT present(),
    UNIQUE (organization_id, mode)
);

CREATE TABLE api_keys (
    id text COLLATE "C" PRIMARY KEY DEFAULT new_id('key_'),
    environment_id int NOT NULL REFERENCES environments,
    name text NOT NULL,
    secret_hash bytea NOT NULL UNIQUE,
    -- The secret's first characters, to tell keys apart in a list.
    hint text NOT NULL,
    scopes text[] NOT NULL,
    created_at moment NOT NULL DEFAULT present(),
    expires_at moment,
    revoked_at moment,
    last_used_at moment
);
CREATE INDEX ON api_keys (environment_id);

-- First versions are far apart. A row inserted again under a deleted id therefore has a higher version than the
-- tombstone, even if the deleted row was changed often.
CREATE SEQUENCE consumer_first_version INCREMENT BY 1048576;

CREATE TABLE consumers (
    id text COLLATE "C" PRIMARY KEY DEFAULT new_id('cons_') CHECK (id ~ '^cons_[0-7][0-9A-HJKMNP-TV-Z]{25}$'),
    environment_id int NOT NULL REFERENCES environments,
    email text CHECK (length(email) <= 254),
    -- The address in lower case, for the unique index, for the search index and for sorting.
    email_key text COLLATE "C" GENERATED ALWAYS AS (lower(email COLLATE "pg_c_utf8")) STORED,
    phone text CHECK (length(phone) <= 32),
    full_name text CHECK (length(full_name) BETWEEN 1 AND 255),
    metadata jsonb CHECK (jsonb_typeof(metadata) = 'object' AND octet_length(metadata::text) <= 32768),
    external_id text COLLATE "C" CHECK (length(external_id) BETWEEN 1 AND 255),
    -- Computed by the triggers; values in a statement are ignored.
    total_orders int NOT NULL DEFAULT 0,
    total_order_value numeric NOT NULL DEFAULT 0
        CONSTRAINT total_order_value_in_range CHECK (total_order_value BETWEEN 0 AND 90000000000000),
    last_order_at moment,
    -- The limit leaves room above, so every allowed version can be raised.
    version bigint NOT NULL DEFAULT nextval('consumer_first_version') CHECK (version BETWEEN 1 AND 4611686018427387904),
    created_at moment NOT NULL DEFAULT present(),
    updated_at moment NOT NULL DEFAULT present(),
    UNIQUE (environment_id, id),
    CONSTRAINT consumers_external_id_unique UNIQUE (environment_id, external_id)
) WITH (fillfactor = 90);
-- A partial index cannot be the target of a foreign key. With a full unique index, every update would lock the row
-- against new orders that refer to it, because PostgreSQL assumes that an update changes the generated column if the
-- table has a BEFORE trigger.
CREATE UNIQUE INDEX consumers_email_unique ON consumers (environment_id, email_key) WHERE email_key IS NOT NULL;

CREATE TABLE orders (
    id text COLLATE "C" PRIMARY KEY DEFAULT new_id('ord_'),
    environment_id int NOT NULL,
    consumer_id text COLLATE "C" NOT NULL,
    external_id text COLLATE "C" CHECK (length(external_id) BETWEEN 1 AND 255),
    status text NOT NULL DEFAULT 'COMPLETED' CHECK (status IN ('CREATED', 'COMPLETED', 'CANCELLED', 'REFUNDED')),
    amount numeric NOT NULL CHECK (amount >= 0 AND amount < 1e15 AND scale(trim_scale(amount)) <= 4),
    refunded_amount numeric NOT NULL DEFAULT 0
        CHECK (refunded_amount BETWEEN 0 AND amount AND scale(trim_scale(refunded_amount)) <= 4),
    currency_code text NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
    base_amount numeric NOT NULL
        CHECK (base_amount >= 0 AND base_amount < 1e15 AND scale(trim_scale(base_amount)) <= 4),
    items jsonb CHECK (jsonb_typeof(items) = 'array'),
    metadata jsonb CHECK (jsonb_typeof(metadata) = 'object'),
    placed_at moment NOT NULL DEFAULT present(),
    created_at moment NOT NULL DEFAULT present(),
    updated_at moment NOT NULL DEFAULT present(),
    counts boolean NOT NULL GENERATED ALWAYS AS (status IN ('CREATED', 'COMPLETED')) STORED,
    value numeric NOT NULL
        GENERATED ALWAYS AS (order_value(status, amount, refunded_amount, base_amount)) STORED
        CONSTRAINT order_value_in_range CHECK (value <= 90000000000000),
    FOREIGN KEY (environment_id, consumer_id) REFERENCES consumers (environment_id, id) ON DELETE CASCADE,
    CONSTRAINT orders_external_id_unique UNIQUE (environment_id, external_id)
);
-- For the newest order of a consumer among the orders that count.
CREATE INDEX orders_newest ON orders (consumer_id, placed_at DESC) WHERE counts;
-- For the list of a consumer's orders, newest first, and for the deletes of ON DELETE CASCADE.
CREATE INDEX orders_by_consumer ON orders (environment_id, consumer_id, placed_at DESC, id DESC);
CREATE INDEX orders_by_time ON orders (environment_id, placed_at DESC, id DESC);

CREATE TABLE audiences (
    id text COLLATE "C" PRIMARY KEY DEFAULT new_id('aud_'),
    environment_id int NOT NULL REFERENCES environments,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    description text,
    metadata jsonb CHECK (jsonb_typeof(metadata) = 'object'),
    type text NOT NULL CHECK (type IN ('STATIC', 'SYNCED_LIST', 'DYNAMIC')),
    rules jsonb CHECK ((type = 'DYNAMIC') = (rules IS NOT NULL)),
    created_at moment NOT NULL DEFAULT present(),
    updated_at moment NOT NULL DEFAULT present(),
    UNIQUE (environment_id, id)
);

CREATE TABLE audience_members (
    environment_id int NOT NULL,
    audience_id text COLLATE "C" NOT NULL,
    consumer_id text COLLATE "C" NOT NULL,
    added_at moment NOT NULL DEFAULT present(),
    PRIMARY KEY (audience_id, consumer_id),
    FOREIGN KEY (environment_id, audience_id) REFERENCES audiences (environment_id, id) ON DELETE CASCADE,
    FOREIGN KEY (environment_id, consumer_id) REFERENCES consumers (environment_id, id) ON DELETE CASCADE
);
CREATE INDEX ON audience_members (consumer_id);

-- A row exists exactly while its change may not be searchable yet.
CREATE TABLE outbox (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment_id int NOT NULL,
    consumer_id text COLLATE "C" NOT NULL CHECK (octet_length(consumer_id) = 31),
    version bigint NOT NULL CHECK (version > 0),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    lane text NOT NULL CHECK (lane IN ('live', 'bulk')),
    request_id text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- For a refused document: retried after a pause, finally parked with the reason.
    attempts smallint NOT NULL DEFAULT 0,
    retry_at timestamptz,
    parked_at timestamptz,
    error text
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX outbox_claim ON outbox (lane, environment_id, seq) WHERE parked_at IS NULL;
CREATE INDEX outbox_consumer ON outbox (consumer_id, version);

CREATE TABLE generations (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    index_name text NOT NULL UNIQUE,
    state text NOT NULL CHECK (state IN ('filling', 'refreshed', 'live', 'kept', 'dropped')),
    document_version int NOT NULL,
    mapping_digest text NOT NULL,
    created_at moment NOT NULL DEFAULT present(),
    live_at moment
);
CREATE UNIQUE INDEX one_generation_under_construction ON generations ((true)) WHERE state IN ('filling', 'refreshed');
CREATE UNIQUE INDEX one_live_generation ON generations ((true)) WHERE state = 'live';

CREATE TABLE idempotency_keys (
    environment_id int NOT NULL REFERENCES environments,
    key text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint bytea NOT NULL,
    status smallint NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    created_at moment NOT NULL DEFAULT present(),
    PRIMARY KEY (environment_id, key)
);
CREATE INDEX ON idempotency_keys (created_at);
