"""A version moves exactly when something readers see changes, and each move is one row of the outbox."""

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
def test_change_that_readers_see_moves_version_and_time_and_is_recorded(environment: Environment, change: str) -> None:
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
def test_change_that_readers_do_not_see_moves_and_records_nothing(environment: Environment, nothing: str) -> None:
    consumer = environment.consumer()
    environment.run("UPDATE consumers SET metadata = '{\"a\": 1.0}' WHERE id = %s", consumer)
    before, mark = environment.row(STAMP, consumer), environment.mark()
    environment.connection.execute(f"UPDATE consumers SET {nothing} WHERE id = %s".encode(), (consumer,))
    assert environment.row(STAMP, consumer) == before
    assert environment.changes_since(mark) == []


def test_total_recounted_to_an_equal_number_is_no_change(environment: Environment) -> None:
    """Sums have the scale of their parts: without orders it is 0, after an order was deleted it is 0.0000."""
    consumer = environment.consumer()
    environment.run("DELETE FROM orders WHERE id = %s", environment.order(consumer))
    before, mark = environment.row(STAMP, consumer), environment.mark()
    environment.run("UPDATE consumers SET total_order_value = 99 WHERE id = %s", consumer)
    assert environment.row(STAMP, consumer) == before
    assert environment.changes_since(mark) == []


def test_version_lowered_together_with_a_change_still_moves_up(environment: Environment) -> None:
    consumer = environment.consumer()
    before = environment.version(consumer)
    environment.run("UPDATE consumers SET version = 1, full_name = 'Lower' WHERE id = %s", consumer)
    assert environment.version(consumer) == before + 1


def test_time_of_a_change_is_the_databases_whatever_the_statement_says(environment: Environment) -> None:
    consumer = environment.consumer()
    statement = "UPDATE consumers SET full_name = 'Then', updated_at = '2001-01-01Z' WHERE id = %s RETURNING updated_at"
    assert environment.value(statement, consumer).year > 2001


def test_order_of_a_consumer_moves_its_version_once_a_statement(environment: Environment) -> None:
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
def test_change_of_an_order_that_leaves_the_totals_moves_nothing(environment: Environment, nothing: str) -> None:
    consumer = environment.consumer()
    older, _ = environment.order(consumer, placed_at="2021-01-01Z"), environment.order(consumer)
    mark = environment.mark()
    environment.connection.execute(f"UPDATE orders SET {nothing} WHERE id = %s".encode(), (older,))
    assert environment.changes_since(mark) == []


def test_order_that_does_not_count_moves_nothing(environment: Environment) -> None:
    consumer, mark = environment.consumer(), environment.mark()
    environment.order(consumer, status="CANCELLED")
    assert environment.changes_since(mark) == []


def test_first_version_stands_above_the_tombstone_of_a_row_changed_often(environment: Environment) -> None:
    consumer = environment.consumer()
    for number in range(50):
        environment.run("UPDATE consumers SET full_name = %s WHERE id = %s", f"Name {number}", consumer)
    environment.run("DELETE FROM consumers WHERE id = %s", consumer)
    tombstone = environment.changes()[-1][1]
    insert: LiteralString = "INSERT INTO consumers (id, environment_id) VALUES (%s, %s)"
    environment.run(insert, consumer, environment.id)
    assert environment.version(consumer) > tombstone


def test_membership_moves_its_consumers_and_no_other(environment: Environment) -> None:
    members = sorted(environment.consumer() for _ in range(3))
    environment.consumer("Not a member")
    add: LiteralString = "INSERT INTO audiences (environment_id, name, type) VALUES (%s, 'A', 'STATIC') RETURNING id"
    audience = environment.value(add, environment.id)
    versions, mark = [environment.version(member) for member in members], environment.mark()
    statement: LiteralString = """
        INSERT INTO audience_members (environment_id, audience_id, consumer_id)
        SELECT %s, %s, unnest(%s::text[]) ON CONFLICT DO NOTHING"""
    for _ in range(2):  # the second time adds nobody
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
def test_row_keeps_its_id_and_its_environment(environment: Environment, table: str, column: str) -> None:
    environment.order(environment.consumer())
    with pytest.raises(psycopg.errors.RestrictViolation, match="keeps its id and its environment"):
        environment.connection.execute(
            f"UPDATE {table} SET {column} WHERE environment_id = %s".encode(), (environment.id,)
        )
