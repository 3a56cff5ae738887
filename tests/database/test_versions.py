"""A version rises exactly with a change visible to readers, and each rise has an outbox row."""

from typing import LiteralString

import psycopg
import pytest

from tests.database.conftest import Environment, pairs

STAMP: LiteralString = "SELECT version, updated_at FROM consumers WHERE id = %s"


@pytest.mark.parametrize(
    "change",
    [
        "email = 'A@example.com'",
        "phone = '+447400123456'",
        "full_name = 'Another'",
        "external_id = 'x'",
        "metadata = '{\"a\": 1.00}'",
        'metadata = \'{"a": 1.0, "b": null}\'',
        "metadata = NULL",
        "created_at = '2020-01-01Z'",
        "version = version + 1",
        "version = version + 1000",
    ],
)
def test_visible_change_raises_version_and_time(environment: Environment, change: str) -> None:
    consumer = environment.consumer()
    environment.run("UPDATE consumers SET email = 'a@example.com', metadata = '{\"a\": 1.0}' WHERE id = %s", consumer)
    environment.run("UPDATE consumers SET updated_at = '2020-01-01Z' WHERE id = %s", consumer)
    before, mark = environment.row(STAMP, consumer), environment.mark()
    environment.connection.execute(f"UPDATE consumers SET {change} WHERE id = %s".encode(), (consumer,))
    version, updated_at = environment.row(STAMP, consumer)
    assert version > before[0]
    assert updated_at >= before[1]
    assert environment.changes_since(mark) == [(consumer, version)]


@pytest.mark.parametrize(
    "nothing",
    [
        "full_name = full_name",
        "version = 1",
        "version = -7",
        "updated_at = '2020-01-01Z'",
        "metadata = '{ \"a\":1.0 }'",
        "total_orders = 99",
        "total_order_value = 5, last_order_at = now()",
    ],
)
def test_update_without_visible_change_records_nothing(environment: Environment, nothing: str) -> None:
    consumer = environment.consumer()
    environment.run("UPDATE consumers SET metadata = '{\"a\": 1.0}' WHERE id = %s", consumer)
    before, mark = environment.row(STAMP, consumer), environment.mark()
    environment.connection.execute(f"UPDATE consumers SET {nothing} WHERE id = %s".encode(), (consumer,))
    assert environment.row(STAMP, consumer) == before
    assert environment.changes_since(mark) == []


LARGE: LiteralString = """
    (SELECT jsonb_build_object('text', string_agg(md5(random()::text), '')) FROM generate_series(1, 300))"""


@pytest.mark.parametrize(
    ("table", "column", "change"),
    [
        ("consumers", "metadata", "full_name = 'Another'"),
        ("orders", "metadata", "status = 'REFUNDED'"),
        ("orders", "items", "metadata = '{}'"),
        ("audiences", "rules", "name = 'Another'"),
    ],
)
def test_change_keeps_large_values_as_stored(environment: Environment, table: str, column: str, change: str) -> None:
    environment.order(environment.consumer())
    environment.run(
        "INSERT INTO audiences (environment_id, name, type, rules) VALUES (%s, 'A', 'DYNAMIC', '[]')", environment.id
    )
    large = LARGE if column == "metadata" else f"jsonb_build_array({LARGE})"
    where = f"WHERE environment_id = {environment.id}"
    stored = f"SELECT pg_column_toast_chunk_id({column}) FROM {table} {where}".encode()
    environment.connection.execute(f"UPDATE {table} SET {column} = {large} {where}".encode())
    before = environment.connection.execute(stored).fetchone()
    environment.connection.execute(f"UPDATE {table} SET {change} {where}".encode())
    assert environment.connection.execute(stored).fetchone() == before != (None,)


def test_new_order_keeps_large_metadata_as_stored(environment: Environment) -> None:
    consumer = environment.consumer()
    stored: LiteralString = "SELECT pg_column_toast_chunk_id(metadata) FROM consumers WHERE id = %s"
    environment.connection.execute(f"UPDATE consumers SET metadata = {LARGE} WHERE id = %s".encode(), (consumer,))
    before = environment.value(stored, consumer)
    environment.order(consumer)
    assert environment.value(stored, consumer) == before is not None


def test_total_recomputed_to_an_equal_number_is_no_change(environment: Environment) -> None:
    """A sum has the scale of its parts: 0 without orders, and 0.0000 after an order was deleted."""
    consumer = environment.consumer()
    environment.run("DELETE FROM orders WHERE id = %s", environment.order(consumer))
    before, mark = environment.row(STAMP, consumer), environment.mark()
    environment.run("UPDATE consumers SET total_order_value = 99 WHERE id = %s", consumer)
    assert environment.row(STAMP, consumer) == before
    assert environment.changes_since(mark) == []


def test_version_lowered_by_an_update_is_still_raised(environment: Environment) -> None:
    consumer = environment.consumer()
    before = environment.version(consumer)
    environment.run("UPDATE consumers SET version = 1, full_name = 'Lower' WHERE id = %s", consumer)
    assert environment.version(consumer) == before + 1


def test_update_time_is_set_by_the_database(environment: Environment) -> None:
    consumer = environment.consumer()
    statement = "UPDATE consumers SET full_name = 'Then', updated_at = '2001-01-01Z' WHERE id = %s RETURNING updated_at"
    assert environment.value(statement, consumer).year > 2001


def test_orders_raise_the_version_once_per_statement(environment: Environment) -> None:
    consumer, mark = environment.consumer(), environment.mark()
    version = environment.version(consumer)
    environment.run(
        """INSERT INTO orders (environment_id, consumer_id, amount, currency_code, base_amount)
        SELECT %s, %s, 5, 'USD', 5 FROM generate_series(1, 100)""",
        environment.id,
        consumer,
    )
    assert environment.changes_since(mark) == [(consumer, version + 1)]


@pytest.mark.parametrize(
    "nothing",
    ["metadata = '{}'", "external_id = 'x'", "status = 'CREATED'", "placed_at = '2020-01-01Z'"],
)
def test_order_update_with_equal_totals_changes_nothing(environment: Environment, nothing: str) -> None:
    consumer = environment.consumer()
    older, _ = environment.order(consumer, placed_at="2021-01-01Z"), environment.order(consumer)
    mark = environment.mark()
    environment.connection.execute(f"UPDATE orders SET {nothing} WHERE id = %s".encode(), (older,))
    assert environment.changes_since(mark) == []


def test_order_that_does_not_count_changes_nothing(environment: Environment) -> None:
    consumer, mark = environment.consumer(), environment.mark()
    environment.order(consumer, status="CANCELLED")
    assert environment.changes_since(mark) == []


def test_first_version_is_above_the_tombstone_of_any_row(environment: Environment) -> None:
    consumer = environment.consumer()
    for number in range(50):
        environment.run("UPDATE consumers SET full_name = %s WHERE id = %s", f"Name {number}", consumer)
    environment.run("DELETE FROM consumers WHERE id = %s", consumer)
    tombstone = environment.changes()[-1][1]
    insert: LiteralString = "INSERT INTO consumers (id, environment_id) VALUES (%s, %s)"
    environment.run(insert, consumer, environment.id)
    assert environment.version(consumer) > tombstone


def test_membership_raises_only_versions_of_its_consumers(environment: Environment) -> None:
    members = sorted(environment.consumer() for _ in range(3))
    environment.consumer("Not a member")
    add: LiteralString = "INSERT INTO audiences (environment_id, name, type) VALUES (%s, 'A', 'STATIC') RETURNING id"
    audience = environment.value(add, environment.id)
    versions, mark = [environment.version(member) for member in members], environment.mark()
    statement: LiteralString = """
        INSERT INTO audience_members (environment_id, audience_id, consumer_id)
        SELECT %s, %s, unnest(%s::text[]) ON CONFLICT DO NOTHING"""
    for _ in range(2):  # the second time adds no member
        environment.run(statement, environment.id, audience, members)
    assert environment.changes_since(mark) == pairs(members, [v + 1 for v in versions])
    mark = environment.mark()
    environment.run("DELETE FROM audience_members WHERE consumer_id = %s", members[0])
    assert environment.changes_since(mark) == [(members[0], versions[0] + 2)]
    mark = environment.mark()
    environment.run("DELETE FROM audiences WHERE id = %s", audience)
    assert environment.changes_since(mark) == pairs(members[1:], [v + 2 for v in versions[1:]])


def test_deleted_member_is_recorded_once(environment: Environment) -> None:
    consumer = environment.consumer()
    environment.order(consumer)
    environment.run(
        """WITH a AS (INSERT INTO audiences (environment_id, name, type) VALUES (%s, 'A', 'STATIC') RETURNING id)
        INSERT INTO audience_members (environment_id, audience_id, consumer_id) SELECT %s, id, %s FROM a""",
        environment.id,
        environment.id,
        consumer,
    )
    version, mark = environment.version(consumer), environment.mark()
    environment.run("DELETE FROM consumers WHERE id = %s", consumer)
    assert environment.changes_since(mark) == [(consumer, version + 1)]
    assert environment.rows("SELECT FROM orders WHERE consumer_id = %s", consumer) == []


@pytest.mark.parametrize("column", ["id = 'cons_00000000000000000000000000'", "environment_id = 1 - environment_id"])
@pytest.mark.parametrize("table", ["consumers", "orders"])
def test_id_and_environment_of_a_row_cannot_change(environment: Environment, table: str, column: str) -> None:
    environment.order(environment.consumer())
    with pytest.raises(psycopg.errors.RestrictViolation, match="keeps its id and its environment"):
        environment.connection.execute(
            f"UPDATE {table} SET {column} WHERE environment_id = %s".encode(), (environment.id,)
        )
