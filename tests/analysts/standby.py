"""Two merchants, and the statements of docs/analysts-tools.md for a standby of PostgreSQL."""

import os
import re
from typing import Any

import psycopg
from sqlalchemy import make_url

from tests.analysts import pages

GROUP = f"analyst_{os.getpid()}"
ANALYST = f"{GROUP}_1"
MERCHANTS = """
    WITH o AS (INSERT INTO organizations (name) VALUES ('shop'), ('other') RETURNING id),
        e AS (INSERT INTO environments (organization_id, mode)
              SELECT id, mode FROM o, unnest(ARRAY['live', 'test']) AS mode RETURNING id)
    INSERT INTO consumers (environment_id, email, phone, full_name, metadata)
    SELECT id, 'secret' || n || '@example.com', '+1202555010' || n, 'Secret ' || n, '{"note": "secret"}'
    FROM e, generate_series(1, 5) AS n"""
ROWS = (
    """INSERT INTO orders (environment_id, consumer_id, amount, currency_code, base_amount)
        SELECT environment_id, id, 12.5, 'USD', 12.5 FROM consumers""",
    "INSERT INTO audiences (environment_id, name, type) SELECT id, 'VIP', 'STATIC' FROM environments",
    """INSERT INTO audience_members (environment_id, audience_id, consumer_id)
        SELECT environment_id, a.id, c.id FROM audiences a JOIN consumers c USING (environment_id)""",
)
VIEWS = {
    "consumers": ("consumers", "id"),
    "orders": ("orders", "id"),
    "audiences": ("audiences", "id"),
    "members": ("audience_members", "consumer_id"),
}
"""The views, each with its table and the column of an id."""


def install(owner: psycopg.Connection[Any]) -> None:
    """Insert the merchants, and run the statements of the page: the role `ANALYST` belongs to the first."""
    pages_statements = [
        pages.block_with("analysts-tools.md", "sql", part) for part in ("CREATE SCHEMA", "LOGIN PASSWORD")
    ]
    for statement in (MERCHANTS, *ROWS, *map(_as_named_here, pages_statements)):
        owner.execute(statement.encode())


def analysts_url(url: str) -> str:
    """Return the address of a database for the analyst."""
    return make_url(url).set(username=ANALYST, password="change-me").render_as_string(hide_password=False)


def rows(connection: psycopg.Connection[Any], query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode()).fetchall()


def _as_named_here(statements: str) -> str:
    """Return statements of the page, with names of roles that no other test of this server has."""
    return re.sub(r"\banalyst(_\d)?\b", rf"{GROUP}\1", statements)
