"""The same rows and questions in PostgreSQL alone.

PostgreSQL has maintained totals, an index for each sort, and for searches `pg_trgm` on a text with all searchable
values of a consumer.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa

from api.consumers.query import Direction, SortField
from infra.index.documents import ConsumerRow, phone_digits
from infra.local.servers import LocalServers
from tests.bench.shop import Shop

Statement = tuple[str, Sequence[object]]

SIZE = 20
DATABASE = "trigrams"
# With locale C, trigrams would ignore letters outside ASCII.
CREATE = f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8' LC_CTYPE 'C.UTF-8'"
COLUMNS = ", ".join(ConsumerRow._fields)
TABLES = """
    CREATE EXTENSION pg_trgm;
    CREATE EXTENSION unaccent;
    CREATE UNLOGGED TABLE raw (
        id text COLLATE "C", environment_id int, version bigint, email text, email_as_sent text, phone text,
        full_name text, metadata jsonb, external_id text COLLATE "C", total_orders int, total_order_value numeric,
        last_order_at timestamptz, created_at timestamptz, updated_at timestamptz, text text,
        email_key text COLLATE "C" GENERATED ALWAYS AS (lower(email)) STORED);
    CREATE TABLE members (audience_id text COLLATE "C", consumer_id text COLLATE "C")"""
SORTED = {
    "createdAt": "created_at",
    "updatedAt": "updated_at",
    "email": "email_key",
    "fullName": "full_name",
    "lastOrderAt": "last_order_at",
    "totalOrderValue": "total_order_value",
    "totalOrders": "total_orders",
}
NULLABLE = {"email", "fullName", "lastOrderAt"}
# Nulls are last in both directions, so nullable columns need two indexes; others are read backwards.
INDEXES = [
    f"CREATE INDEX ON people (environment_id, {column} {way}, id {way[:4]})"
    for sort_by, column in SORTED.items()
    for way in (("DESC NULLS LAST", "ASC") if sort_by in NULLABLE else ("DESC",))
] + [
    "CREATE INDEX ON people (environment_id, phone)",
    "CREATE INDEX ON people (environment_id, external_id)",
    "CREATE INDEX ON people USING gin (metadata jsonb_path_ops)",
    "CREATE INDEX ON people USING gin (text gin_trgm_ops)",
    "CREATE INDEX ON people USING gin (full_name gin_trgm_ops)",
    "CREATE INDEX ON members (audience_id, consumer_id)",
]
PEOPLE = """
    CREATE TABLE people (LIKE raw INCLUDING GENERATED, PRIMARY KEY (id));
    INSERT INTO people SELECT {columns}, unaccent(lower(text)) FROM raw;
    DROP TABLE raw"""
ROW = f"SELECT {COLUMNS} FROM people p WHERE environment_id = %s"
NEWEST = "ORDER BY created_at DESC, id DESC LIMIT %s"
WORD = "text LIKE '%%' || unaccent(lower(%s)) || '%%'"
PHONE = re.compile(r"[0-9 +\-–.()/x#]+")


@contextmanager
def filled(shop: Shop, servers: LocalServers) -> Iterator[str]:
    """Create a database with the shop's consumers, and yield its address."""
    server = servers.addresses["database_url"]
    own = address(servers)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(CREATE)
        # A plan cached for other words would be unfair to PostgreSQL.
        connection.execute(f"ALTER DATABASE {DATABASE} SET plan_cache_mode = force_custom_plan".encode())
    try:
        with psycopg.connect(own, autocommit=True) as connection, psycopg.connect(shop.address) as source:
            connection.execute(TABLES)
            _copy(source, connection)
            connection.execute(PEOPLE.format(columns=COLUMNS).encode())
            for index in INDEXES:
                connection.execute(index.encode())
            connection.execute("VACUUM ANALYZE")
        yield own
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)".encode())


def address(servers: LocalServers) -> str:
    return sa.make_url(servers.addresses["database_url"]).set(database=DATABASE).render_as_string(hide_password=False)


def _copy(source: psycopg.Connection[Any], target: psycopg.Connection[Any]) -> None:
    with source.cursor("all") as rows, target.cursor() as cursor:
        rows.itersize = 10_000
        rows.execute(f"SELECT {COLUMNS.replace('metadata', 'metadata::text')} FROM consumers".encode())
        with cursor.copy(f"COPY raw ({COLUMNS}, text) FROM STDIN".encode()) as copy:
            for row in map(ConsumerRow._make, rows):
                copy.write_row((*row, search_text(row.full_name, row.email, row.phone, row.external_id)))
    members = source.execute("SELECT audience_id, consumer_id FROM audience_members")
    with target.cursor() as cursor, cursor.copy("COPY members FROM STDIN") as copy:
        for member in members:
            copy.write_row(member)


def search_text(full_name: str | None, email: str | None, phone: str | None, external_id: str | None) -> str:
    """Return all searchable values of a consumer as a text."""
    parts = [full_name, email, *(phone_digits(phone) if phone else ()), external_id]
    return " ".join(part for part in parts if part)


def page(
    environment: int, sort_by: SortField, direction: Direction, position: Sequence[Any] | None, *, backward: bool
) -> Statement | None:
    """Return the SQL of `QuestionBuilder.page`; None in the middle of a sort with nulls."""
    column, way = SORTED[sort_by], direction
    if position and sort_by in NULLABLE:
        return None
    if backward:
        way = "asc" if direction == "desc" else "desc"
    nulls = f"NULLS {'FIRST' if backward else 'LAST'}" if sort_by in NULLABLE else ""
    order = f"ORDER BY {column} {way} {nulls}, id {way} LIMIT %s"
    if not position:
        return f"{ROW} {order}", [environment, SIZE]
    time = "to_timestamp(%s / 1000.0)"
    value = {"createdAt": time, "updatedAt": time, "totalOrderValue": "%s / 10000.0"}.get(sort_by, "%s")
    after = f"({column}, id) {'>' if way == 'asc' else '<'} ({value}, %s)"
    return f"{ROW} AND {after} {order}", [environment, position[-2], position[-1], SIZE]


def counted(environment: int) -> Statement:
    count = "SELECT count(*) FROM people WHERE environment_id = %s"
    return f"SELECT *, ({count}) FROM ({ROW} {NEWEST}) AS page", [environment, environment, SIZE]


def members(environment: int, audience: str) -> Statement:
    member = "EXISTS (SELECT FROM members m WHERE m.audience_id = %s AND m.consumer_id = p.id)"
    return f"{ROW} AND {member} {NEWEST}", [environment, audience, SIZE]


def filtered(environment: int, text: str) -> Statement:
    """Return the SQL of a filtered list, newest first."""
    conditions: list[str] = []
    values: list[object] = []
    for condition in text.split(" AND "):
        field, _, value = condition.partition(":")
        if field.startswith("metadata."):
            for name in reversed(field.split(".")[1:]):
                value = f'{{"{name}": {value}}}' if value.startswith("{") else f'{{"{name}": "{value}"}}'
            conditions.append("metadata @> %s::jsonb")
            values.append(value)
        elif value.startswith("~"):
            conditions.append("full_name ILIKE %s")
            values.append(f"%{value[1:]}%")
        elif value.startswith(">="):
            conditions.append("total_order_value >= %s::numeric")
            values.append(value[2:])
        else:
            conditions.append("total_order_value BETWEEN %s::numeric AND %s::numeric")
            values += value.split("..")
    return f"{ROW} AND {' AND '.join(conditions)} {NEWEST}", [environment, *values, SIZE]


def every_word(environment: int, text: str) -> Statement:
    """Return the SQL for texts with every word, most similar first."""
    words = [re.sub(r"([\\%_])", r"\\\1", word) for word in as_stored(text).split()]
    order = "ORDER BY word_similarity(unaccent(lower(%s)), text) DESC, id DESC LIMIT %s"
    every = " AND ".join([WORD] * len(words))
    return f"{ROW} AND {every} {order}", [environment, *words, as_stored(text), SIZE]


def similar(environment: int, text: str) -> Statement:
    """Return the SQL for texts with a similar part, most similar first."""
    order = "ORDER BY word_similarity(unaccent(lower(%s)), text) DESC, id DESC LIMIT %s"
    return f"{ROW} AND unaccent(lower(%s)) <%% text {order}", [environment, as_stored(text), as_stored(text), SIZE]


def equal(environment: int, exact: dict[str, str]) -> Statement:
    columns = {"email": "email_key", "phone": "phone", "externalId": "external_id"}
    conditions = " AND ".join(f"{columns[name]} = %s" for name in exact)
    values = [value.lower() if name == "email" else value for name, value in exact.items()]
    return f"{ROW} AND {conditions} LIMIT %s", [environment, *values, SIZE]


def as_stored(text: str) -> str:
    """Reduce a phone number to its digits, as stored in the text."""
    return "".join(filter(str.isdigit, text)).removeprefix("00") if PHONE.fullmatch(text) else text
