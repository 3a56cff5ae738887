"""The log of PostgreSQL holds no personal data, because logs are kept longer and read by more people than rows."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from infra.local.postgres import Postgres
from infra.local.server import wait_ready

EMAIL = "ann.secret@example.com"


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path, durable=False)
    server.spawn()
    try:
        wait_ready([server], movable=True)
        yield server
    finally:
        server.stop()


def test_failed_statements_leave_no_values_in_the_log(postgres: Postgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE people (email text UNIQUE, age int CHECK (age > 0))")
        connection.execute("INSERT INTO people VALUES (%s, 1)", [EMAIL])
        for statement, error in (
            ("INSERT INTO people VALUES (%s, 1)", psycopg.errors.UniqueViolation),
            ("INSERT INTO people VALUES (%s, -1)", psycopg.errors.CheckViolation),
            (f"INSERT INTO people VALUES ('{EMAIL}', length(%s::text))", psycopg.errors.UniqueViolation),
            ("SELECT no_column, %s::text FROM people", psycopg.errors.UndefinedColumn),
        ):
            with pytest.raises(error):
                connection.execute(statement.encode(), [EMAIL])
    log = postgres.log.read_text("utf-8")
    assert "duplicate key value violates unique constraint" in log
    assert "violates check constraint" in log
    assert EMAIL not in log
