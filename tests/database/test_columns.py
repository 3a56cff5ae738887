"""A change of any column shown in documents raises the consumer's version and is recorded in the outbox.

The columns are read from the catalogue, so columns of later migrations are tested without a change here.
"""

from collections.abc import Iterator
from typing import Any, LiteralString, NamedTuple

import msgspec
import psycopg
import pytest
from psycopg import errors, sql

from infra.index.documents import AUDIENCE_IDS, COLUMNS, ConsumerRow, document
from infra.local.servers import LocalServers
from tests.database.columns import Column, columns, tables_around_consumers
from tests.database.conftest import Environment, Row, connected
from tests.databases import migrated_database

DISCARDED = {
    "total_orders": "counted by the trigger on orders",
    "total_order_value": "counted by the trigger on orders",
    "last_order_at": "counted by the trigger on orders",
    "updated_at": "set by the trigger that moves the version",
}
"""Columns of consumers for which the database discards the value of a statement, with the reason."""
REFUSED = {
    "consumers": {"id", "environment_id"},
    "orders": {"id", "environment_id"},
    "audience_members": {"environment_id", "audience_id", "consumer_id", "added_at"},
    "audiences": {"id", "environment_id", "rules"},  # rules: the audience is STATIC
    "environments": {"id", "organization_id"},
    "organizations": {"id"},
}
"""By table, columns for which the database refuses other values, so no change can be recorded."""
SHOWN = {
    "consumers": {"email", "phone", "full_name", "metadata", "external_id", "created_at"},
    "orders": {"consumer_id", "status", "amount", "refunded_amount", "base_amount", "placed_at"},
    "audience_members": set(),
    "audiences": set(),
    "environments": set(),
    "organizations": set(),
}
"""By table, columns shown in documents; later columns are covered without being listed here."""
OTHER_VALUES = {
    ("orders", "consumer_id"): """
        (SELECT c.id FROM consumers c WHERE c.environment_id = orders.environment_id AND c.full_name = 'Another')""",
    ("orders", "status"): "'CANCELLED'",
    ("orders", "currency_code"): "'EUR'",
    ("audiences", "type"): "'SYNCED_LIST'",
    ("environments", "mode"): "'test'",
    ("organizations", "currency"): "'EUR'",
    ("organizations", "region"): "'GB'",
}
"""Other values for columns that accept only certain values."""
ADDED: LiteralString = """
    ALTER TABLE consumers
        ADD COLUMN added_tags text[], ADD COLUMN added_is_vip boolean, ADD COLUMN added_score numeric DEFAULT 1.0,
        ADD COLUMN added_share double precision DEFAULT 0.5, ADD COLUMN added_born_on date,
        ADD COLUMN added_seen_at timestamptz, ADD COLUMN added_consents jsonb DEFAULT '{}',
        ADD COLUMN added_token uuid, ADD COLUMN added_digest bytea"""

DOCUMENTS = f"SELECT {COLUMNS}, {AUDIENCE_IDS} FROM consumers c WHERE c.environment_id = %s".encode()


class Change(NamedTuple):
    """The effect of a statement."""

    shown: set[str]
    """Ids of consumers with changes in the document, apart from version and update time."""
    stored: set[str]
    """Ids of consumers with changes in the row."""
    moved: list[Row]
    """Ids and versions of consumers with a raised version."""
    recorded: list[Row]
    """Ids and versions of the outbox rows."""


class Rows:
    """An organization with two consumers, the first with an order and an audience."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.consumer = environment.consumer()
        environment.consumer("Another")
        environment.run(
            """UPDATE consumers SET email = 'A@example.com', phone = '+447400123456', external_id = 'x',
                metadata = '{"a": 1.0}' WHERE id = %s""",
            self.consumer,
        )
        order: LiteralString = """
            INSERT INTO orders (environment_id, consumer_id, external_id, amount, refunded_amount, currency_code,
                base_amount, items, metadata)
            VALUES (%s, %s, 'o', 10, 5, 'USD', 10, '[]', '{}') RETURNING id"""
        audience: LiteralString = """
            WITH a AS (INSERT INTO audiences (environment_id, name, type, description, metadata)
                       VALUES (%s, 'A', 'STATIC', 'D', '{}') RETURNING environment_id, id)
            INSERT INTO audience_members (environment_id, audience_id, consumer_id)
            SELECT environment_id, id, %s FROM a RETURNING audience_id"""
        organization: LiteralString = "SELECT organization_id FROM environments WHERE id = %s"
        audience_id = environment.value(audience, environment.id, self.consumer)
        self.keys: dict[str, tuple[str, object]] = {
            "consumers": ("id", self.consumer),
            "orders": ("id", environment.value(order, environment.id, self.consumer)),
            "audience_members": ("audience_id", audience_id),
            "audiences": ("id", audience_id),
            "environments": ("id", environment.id),
            "organizations": ("id", environment.value(organization, environment.id)),
        }
        """By table, column and value to select the row."""

    def change(self, table: str, column: Column, value: sql.Composable) -> Change | None:
        """Set a column of a table's row, and roll back; return None if the database refuses the statement."""
        key, selected = self.keys[table]
        statement = sql.SQL("UPDATE {} SET {} = {} WHERE {} = {}").format(
            sql.Identifier(table), sql.Identifier(column.name), value, sql.Identifier(key), sql.Literal(selected)
        )
        with self._environment.connection.transaction(force_rollback=True):
            documents, rows, mark = self._documents(), self._rows(), self._environment.mark()
            try:
                with self._environment.connection.transaction():
                    assert self._environment.connection.execute(statement).rowcount == 1
            except (psycopg.IntegrityError, errors.GeneratedAlways):
                return None
            changed, stored = self._documents(), self._rows()
            return Change(
                shown={key for key in documents.keys() | changed.keys() if documents.get(key) != changed.get(key)},
                stored={key for key in rows.keys() | stored.keys() if rows.get(key) != stored.get(key)},
                moved=sorted((key, row[0]) for key, row in stored.items() if row[0] > rows[key][0]),
                recorded=self._environment.changes_since(mark),
            )

    def _documents(self) -> dict[str, Any]:
        documents_by_id = {}
        for row in self._environment.connection.execute(DOCUMENTS, (self._environment.id,)):
            content = msgspec.json.decode(document(ConsumerRow._make(row[:-1]), row[-1]))
            for part in (content, content["row"]):
                del part["updatedAt"]
            del content["version"]
            documents_by_id[row[0]] = content
        return documents_by_id

    def _rows(self) -> dict[str, Row]:
        """Return version and text of each row; the text contains every column."""
        query: LiteralString = "SELECT id, version, c::text FROM consumers c WHERE environment_id = %s"
        return {key: (version, text) for key, version, text in self._environment.rows(query, self._environment.id)}


@pytest.fixture
def rows(environment: Environment) -> Rows:
    return Rows(environment)


def changes(environment: Environment, rows: Rows, table: str) -> Iterator[tuple[str, Change | None]]:
    """Change each column that can be set, and yield column and effect."""
    for column in columns(environment, table):
        if not column.is_generated:  # generated columns depend on other columns
            listed_value = OTHER_VALUES.get((table, column.name))
            yield (
                column.name,
                rows.change(table, column, sql.SQL(listed_value) if listed_value else column.other_value()),
            )


def unrecorded(environment: Environment, rows: Rows) -> list[str]:
    """Return columns of consumers for which a change raises no version or has no outbox row.

    Columns of `DISCARDED` must not be stored at all, and columns of `REFUSED` must be refused.
    """
    names, refused = [], set()
    for name, change in changes(environment, rows, "consumers"):
        if change is None:
            refused.add(name)
        elif name in DISCARDED:
            assert change == Change(set(), set(), [], []), name
        elif change.stored != {rows.consumer} or len(change.moved) != 1 or change.recorded != change.moved:
            names.append(name)
    assert refused == REFUSED["consumers"]
    return names


def test_change_of_any_column_of_consumers_is_recorded(environment: Environment, rows: Rows) -> None:
    assert unrecorded(environment, rows) == []


def test_column_added_later_is_recorded_without_a_new_trigger(servers: LocalServers) -> None:
    """The writing session has planned the trigger's statements before the column is added."""
    with migrated_database(servers, "altered") as url, connected(url) as environment:
        rows = Rows(environment)
        assert unrecorded(environment, rows) == []
        with environment.connect() as other:
            other.execute(ADDED)
        assert {"added_tags", "added_digest"} < {column.name for column in columns(environment, "consumers")}
        assert unrecorded(environment, rows) == []
        # The stored row lacks the column; its default is in the catalogue.
        version, mark = environment.version(rows.consumer), environment.mark()
        environment.run("UPDATE consumers SET added_score = NULL WHERE id = %s", rows.consumer)
        assert environment.changes_since(mark) == [(rows.consumer, version + 1)]
        with environment.connect() as other:
            other.execute("ALTER TABLE consumers DROP COLUMN added_tags, DROP COLUMN added_score")
        assert unrecorded(environment, rows) == []
        assert unchanged_but_recorded(environment, rows, "consumers") == []


@pytest.mark.parametrize("table", REFUSED)
def test_change_of_any_column_shown_in_documents_is_recorded(environment: Environment, rows: Rows, table: str) -> None:
    refused, shown = set(), set()
    for name, change in changes(environment, rows, table):
        if change is None:
            refused.add(name)
            continue
        shown |= {name} if change.shown else set()
        assert change.recorded == change.moved, name
        assert change.shown <= {consumer for consumer, _ in change.moved}, f"a change of {table}.{name} is lost"
    assert refused == REFUSED[table]
    assert shown >= SHOWN[table]


def unchanged_but_recorded(environment: Environment, rows: Rows, table: str) -> list[str]:
    """Return columns for which an UPDATE to the stored value is recorded or changes a consumer."""
    settable = [column for column in columns(environment, table) if not column.is_generated]
    changes_by_column = {column.name: rows.change(table, column, sql.Identifier(column.name)) for column in settable}
    return [name for name, change in changes_by_column.items() if change not in (None, Change(set(), set(), [], []))]


@pytest.mark.parametrize("table", REFUSED)
def test_update_that_changes_no_value_records_nothing(environment: Environment, rows: Rows, table: str) -> None:
    assert unchanged_but_recorded(environment, rows, table) == []


def test_every_table_around_consumers_is_covered(environment: Environment, rows: Rows) -> None:
    """A new table referring to consumers may feed documents, and then needs triggers and a row here."""
    assert tables_around_consumers(environment) == set(REFUSED) == set(SHOWN) == set(rows.keys)


def test_each_field_of_a_row_is_the_column_of_its_name(environment: Environment, rows: Rows) -> None:
    environment.run("UPDATE consumers SET created_at = '2020-01-01Z' WHERE id = %s", rows.consumer)
    [stored] = environment.connection.execute(
        f"SELECT {COLUMNS} FROM consumers c WHERE c.id = %s".encode(), (rows.consumer,)
    )
    row = ConsumerRow._make(stored)
    # The database makes `email_key` for its index; documents have the key of `infra/emails.py`.
    assert row._asdict().keys() == {column.name for column in columns(environment, "consumers")} - {"email_key"}
    assert len(set(row)) == len(row)  # a swap of any two shows
    for name, value in row._asdict().items():
        column = sql.Identifier(name) + sql.SQL("::text" if name == "metadata" else "")
        query = sql.SQL("SELECT {} FROM consumers WHERE id = %s").format(column)
        assert environment.connection.execute(query, (rows.consumer,)).fetchone() == (value,), name


def test_version_trigger_is_the_last_before_trigger(environment: Environment) -> None:
    """BEFORE triggers run in the order of names; a later trigger could change a column unnoticed."""
    names: LiteralString = """
        SELECT tgname FROM pg_trigger
        WHERE tgrelid = 'consumers'::regclass AND NOT tgisinternal AND tgtype & 19 = 19 ORDER BY tgname"""
    assert environment.rows(names)[-1] == ("consumers_version",)  # 19: for each row, BEFORE, UPDATE
