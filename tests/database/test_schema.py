"""`infra/accounts/tables.py` says what the migrations made."""

import pytest
import sqlalchemy as sa

from infra.accounts import tables
from infra.database import migrate
from infra.database.engine import sqlalchemy_url
from tests.database.conftest import Environment

COLUMNS = """
    SELECT a.attname,
        format_type(coalesce(nullif(t.typbasetype, 0), t.oid), coalesce(nullif(a.atttypmod, -1), t.typtypmod)),
        NOT a.attnotnull, a.atthasdef OR a.attidentity <> ''
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""


@pytest.mark.parametrize("table", tables.metadata.sorted_tables, ids=str)
def test_declared_columns_are_the_databases(environment: Environment, table: sa.Table) -> None:
    stored = {name: (kind, null) for name, kind, null, _ in environment.connection.execute(COLUMNS, (table.name,))}
    dialect = sa.create_engine(sqlalchemy_url(environment.url)).dialect
    declared = {
        column.name: (column.type.compile(dialect).lower().replace("[]", ""), bool(column.nullable))
        for column in table.columns
    }
    plain = {name: (kind.removesuffix("[]"), null) for name, (kind, null) in stored.items()}
    assert declared == plain


@pytest.mark.parametrize("table", tables.metadata.sorted_tables, ids=str)
def test_values_the_database_makes_are_the_databases(environment: Environment, table: sa.Table) -> None:
    made = {name for name, _, _, default in environment.connection.execute(COLUMNS, (table.name,)) if default}
    declared = {
        column.name for column in table.columns if column.server_default is not None or column.identity is not None
    }
    assert declared <= made
    keys = {column.name for column in table.primary_key}
    assert keys == {
        name
        for (name,) in environment.rows(
            """SELECT a.attname FROM pg_index i
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
            WHERE i.indisprimary AND i.indrelid = %s::regclass""",
            table.name,
        )
    }


def test_migrating_again_changes_nothing(environment: Environment) -> None:
    consumer = environment.consumer()
    migrate.upgrade(environment.url)
    assert environment.version(consumer)
