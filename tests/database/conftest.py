"""A migrated database without an index, and a new environment for each test."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, NamedTuple

import psycopg
import pytest

from infra.local.servers import LocalServers
from tests.databases import migrated_database

_numbers = itertools.count(1)

Row = tuple[Any, ...]


class Environment(NamedTuple):
    """An environment, with a connection in autocommit."""

    url: str
    id: int
    connection: psycopg.Connection[Row]

    def rows(self, query: LiteralString, *values: object) -> list[Row]:
        return self.connection.execute(query, values).fetchall()

    def row(self, query: LiteralString, *values: object) -> Row:
        [row] = self.rows(query, *values)
        return row

    def value(self, query: LiteralString, *values: object) -> Any:
        [value] = self.row(query, *values)
        return value

    def run(self, statement: LiteralString, *values: object) -> int:
        return self.connection.execute(statement, values).rowcount

    def connect(self) -> psycopg.Connection[Row]:
        """Open a second connection, for another client."""
        return psycopg.connect(self.url, autocommit=True)

    def consumer(self, name: str = "A Consumer") -> str:
        insert: LiteralString = "INSERT INTO consumers (environment_id, full_name) VALUES (%s, %s) RETURNING id"
        return str(self.value(insert, self.id, name))

    def order(self, consumer_id: str, amount: object = 10, status: str = "COMPLETED", placed_at: str = "now") -> str:
        insert: LiteralString = """
            INSERT INTO orders (environment_id, consumer_id, status, amount, currency_code, base_amount, placed_at)
            VALUES (%s, %s, %s, %s, 'USD', %s, %s) RETURNING id"""
        return str(self.value(insert, self.id, consumer_id, status, amount, amount, placed_at))

    def version(self, consumer_id: str) -> int:
        return int(self.value("SELECT version FROM consumers WHERE id = %s", consumer_id))

    def totals(self, consumer_id: str) -> Row:
        query: LiteralString = (
            "SELECT total_orders, total_order_value, last_order_at::text FROM consumers WHERE id = %s"
        )
        return self.row(query, consumer_id)

    def changes(self) -> list[Row]:
        """Return consumer and version of all outbox rows."""
        return self.rows(
            "SELECT consumer_id, version FROM outbox WHERE environment_id = %s ORDER BY consumer_id, version", self.id
        )

    def mark(self) -> int:
        """Return the current position in the outbox, for `changes_since`."""
        return int(self.value("SELECT coalesce(max(seq), 0) FROM outbox"))

    def changes_since(self, mark: int) -> list[Row]:
        query: LiteralString = """
            SELECT consumer_id, version FROM outbox WHERE environment_id = %s AND seq > %s
            ORDER BY consumer_id, version"""
        return self.rows(query, self.id, mark)


@pytest.fixture(scope="session")
def database_url(servers: LocalServers) -> Iterator[str]:
    with migrated_database(servers, "model") as url:
        yield url


def new_environment(connection: psycopg.Connection[Row]) -> int:
    name = f"org {next(_numbers)}"
    insert: LiteralString = """
        WITH o AS (INSERT INTO organizations (name) VALUES (%s) RETURNING id)
        INSERT INTO environments (organization_id, mode) SELECT id, 'live' FROM o RETURNING id"""
    [number] = connection.execute(insert, (name,)).fetchone() or ()
    return int(number)


@pytest.fixture
def environment(database_url: str) -> Iterator[Environment]:
    with connected(database_url) as environment:
        yield environment


@contextmanager
def connected(database_url: str) -> Iterator[Environment]:
    """Create an environment, and open its connection."""
    with psycopg.connect(database_url, autocommit=True, options="-c timezone=UTC") as connection:
        yield Environment(database_url, new_environment(connection), connection)


@pytest.fixture
def other(environment: Environment) -> Environment:
    """A second environment of the same database."""
    return environment._replace(id=new_environment(environment.connection))


def pairs(ids: Sequence[str], versions: Sequence[int]) -> list[Row]:
    return sorted(zip(ids, versions, strict=True))
