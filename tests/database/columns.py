"""Columns from PostgreSQL's catalogue, with a value different from the stored value."""

from typing import LiteralString, NamedTuple

from psycopg import sql

from tests.database.conftest import Environment

CATALOGUE: LiteralString = """
    SELECT a.attname, coalesce(e.typname, b.typname), e.oid IS NOT NULL, a.attgenerated <> ''
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    JOIN pg_type b ON b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
    LEFT JOIN pg_type e ON e.oid = b.typelem AND b.typcategory = 'A'
    WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
# The table consumers, all tables referring to consumers, and all tables referred to by these.
AROUND_CONSUMERS: LiteralString = """
    WITH RECURSIVE around (id) AS (
        SELECT 'consumers'::regclass::oid
        UNION SELECT conrelid FROM pg_constraint WHERE contype = 'f' AND confrelid = 'consumers'::regclass
        UNION SELECT c.confrelid FROM pg_constraint c JOIN around a ON a.id = c.conrelid WHERE c.contype = 'f')
    SELECT id::regclass::text FROM around"""
OTHER_VALUE = {
    "bool": "NOT coalesce({}, false)",
    "bytea": r"coalesce({}, '') || '\x01'",
    "date": "coalesce({}, '2000-01-01') + 1",
    "float8": "coalesce({}, 0) + 1",
    "int2": "coalesce({}, 0) + 1",
    "int4": "coalesce({}, 0) + 1",
    "int8": "coalesce({}, 0) + 1",
    "interval": "coalesce({}, '0') + interval '1 hour'",
    "jsonb": """coalesce({}, '{{}}') || '{{"other": true}}'""",
    "numeric": "coalesce({}, 0) + 1",
    "text": "coalesce({}, '') || 'x'",
    "timestamptz": "coalesce({}, '2000-01-01Z') + interval '1 day'",
    "uuid": "uuidv7()",
}
"""By type, an SQL expression for a value different from the value of the column `{}`."""


class Column(NamedTuple):
    name: str
    type: str
    """The type of the column, or of an array's elements."""
    is_array: bool
    is_generated: bool

    def other_value(self) -> sql.Composed:
        """Return an SQL expression for a value different from the stored value.

        Raises:
            KeyError: `OTHER_VALUE` lacks the type.
        """
        if self.is_array:
            element = sql.SQL(OTHER_VALUE[self.type]).format(sql.SQL("NULL::{}").format(sql.Identifier(self.type)))
            return sql.SQL("array_append({}, {})").format(sql.Identifier(self.name), element)
        return sql.SQL(OTHER_VALUE[self.type]).format(sql.Identifier(self.name))


def columns(environment: Environment, table: str) -> list[Column]:
    return [Column(*row) for row in environment.rows(CATALOGUE, table)]


def tables_around_consumers(environment: Environment) -> set[str]:
    return {name for (name,) in environment.rows(AROUND_CONSUMERS)}
