"""Constraints of the database, for every writer."""

from typing import LiteralString

import psycopg
import pytest
from psycopg import errors

from tests.database.conftest import Environment

ID = "cons_01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.mark.parametrize(
    "tables",
    ["consumers CASCADE", "orders", "audiences CASCADE", "audience_members", "organizations CASCADE", "outbox"],
)
def test_truncate_is_refused(environment: Environment, tables: str) -> None:
    consumer = environment.consumer()
    with pytest.raises(errors.RestrictViolation, match=r"TRUNCATE of .* is refused"):
        environment.connection.execute(f"TRUNCATE {tables}".encode())
    assert environment.version(consumer)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", ""),
        ("id", ID.lower()),
        ("id", ID[:-1]),
        ("id", ID + "A"),
        ("id", ID + "\n"),
        ("id", ID.replace("cons", "ord")),
        ("id", ID[:5] + "8" + ID[6:]),
        ("id", ID[:-1] + "U"),
        ("id", "cons_" + "0" * 600),
        ("email", "x" * 255),
        ("phone", "1" * 41),
        ("full_name", ""),
        ("full_name", "x" * 256),
        ("external_id", ""),
        ("external_id", "x" * 256),
        ("metadata", "[]"),
        ("metadata", "null"),
        ("metadata", '"text"'),
        ("metadata", f'{{"a": "{"x" * 32768}"}}'),
        ("metadata", '{"a": 1e40000}'),
        ("version", "0"),
        ("version", "-1"),
        ("version", "9223372036854775807"),
        ("created_at", "infinity"),
        ("created_at", "-infinity"),
        ("created_at", "10000-01-01Z"),
        ("created_at", "0044-03-15 BC"),
        ("updated_at", "infinity"),
        ("updated_at", "20000-01-01Z"),
    ],
)
def test_consumer_value_outside_its_limits_is_refused(environment: Environment, column: str, value: str) -> None:
    statement = f"INSERT INTO consumers (environment_id, {column}) VALUES (%s, %s)"
    with pytest.raises(errors.CheckViolation):
        environment.connection.execute(statement.encode(), (environment.id, value))
    assert environment.changes() == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("amount", "NaN"),
        ("amount", "Infinity"),
        ("amount", "-1"),
        ("amount", "1e15"),
        ("amount", "0.00001"),
        ("base_amount", "NaN"),
        ("base_amount", "Infinity"),
        ("base_amount", "-0.0001"),
        ("base_amount", "1e15"),
        ("base_amount", "0.12345"),
        ("base_amount", "90000000000000.0001"),
        ("base_amount", "1e100000"),
        ("refunded_amount", "NaN"),
        ("refunded_amount", "-Infinity"),
        ("refunded_amount", "11"),
        ("refunded_amount", "0.00001"),
        ("status", "completed"),
        ("currency_code", "usd"),
        ("placed_at", "infinity"),
        ("created_at", "-infinity"),
        ("updated_at", "infinity"),
        ("items", "{}"),
        ("metadata", "[]"),
    ],
)
def test_order_value_outside_its_limits_is_refused(environment: Environment, column: str, value: str) -> None:
    consumer = environment.consumer()
    order = {"amount": "10", "base_amount": "10", "currency_code": "USD", "status": "CREATED"} | {column: value}
    columns, placeholders = ", ".join(order), ", ".join(["%s"] * len(order))
    statement = f"INSERT INTO orders (environment_id, consumer_id, {columns}) VALUES (%s, %s, {placeholders})"
    with pytest.raises(errors.CheckViolation):
        environment.connection.execute(statement.encode(), (environment.id, consumer, *order.values()))
    assert environment.totals(consumer) == (0, 0, None)


def test_total_past_the_limit_is_refused_with_its_order(environment: Environment) -> None:
    consumer = environment.consumer()
    environment.order(consumer, amount=90_000_000_000_000)
    with pytest.raises(errors.CheckViolation) as refused:
        environment.order(consumer, amount="0.0001")
    assert refused.value.diag.constraint_name == "total_order_value_in_range"
    assert environment.totals(consumer)[:2] == (1, 90_000_000_000_000)


def test_child_rows_of_another_environment_are_refused(environment: Environment, other: Environment) -> None:
    consumer = environment.consumer()
    with pytest.raises(errors.ForeignKeyViolation):
        other.order(consumer)
    audience: LiteralString = (
        "INSERT INTO audiences (environment_id, name, type) VALUES (%s, 'A', 'STATIC') RETURNING id"
    )
    member: LiteralString = (
        "INSERT INTO audience_members (environment_id, audience_id, consumer_id) VALUES (%s, %s, %s)"
    )
    theirs = other.value(audience, other.id)
    for number in (environment.id, other.id):
        with pytest.raises(errors.ForeignKeyViolation):
            environment.run(member, number, theirs, consumer)
    assert len(environment.changes()) == 1


def test_membership_is_never_changed_in_place(environment: Environment) -> None:
    with pytest.raises(errors.RestrictViolation, match="Delete the membership"):
        environment.run("UPDATE audience_members SET added_at = now() WHERE environment_id = %s", environment.id)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ann@example.com", "ANN@example.com"),
        ("jürgen@example.com", "JÜRGEN@EXAMPLE.COM"),
        ("ΔΟΚΙΜΗ@παράδειγμα.δοκιμή", "δοκιμη@ΠΑΡΆΔΕΙΓΜΑ.δοκιμή"),
        ("почта@пример.рф", "ПОЧТА@ПРИМЕР.РФ"),
        ("ẞ@example.com", "ß@example.com"),
    ],
)
def test_email_is_unique_in_an_environment_ignoring_case(
    environment: Environment, other: Environment, first: str, second: str
) -> None:
    insert: LiteralString = "INSERT INTO consumers (environment_id, email) VALUES (%s, %s)"
    environment.run(insert, environment.id, first)
    with pytest.raises(errors.UniqueViolation) as refused:
        environment.run(insert, environment.id, second)
    assert refused.value.diag.constraint_name == "consumers_email_unique"
    other.run(insert, other.id, second)
    environment.run("DELETE FROM consumers WHERE environment_id = %s", environment.id)
    environment.run(insert, environment.id, second)


def test_null_emails_and_external_ids_are_no_duplicates(environment: Environment) -> None:
    assert environment.consumer() != environment.consumer()


@pytest.mark.parametrize("state", ["live", "filling"])
def test_at_most_one_generation_is_live_and_one_is_built(environment: Environment, state: str) -> None:
    add: LiteralString = """
        INSERT INTO generations (index_name, state, document_version, mapping_digest, fields, phase)
        VALUES (%s, %s, 1, '', '{}', 'done')"""
    with environment.connection.transaction(force_rollback=True):
        environment.run(add, "one", state)
        with pytest.raises(errors.UniqueViolation), environment.connection.transaction():
            environment.run(add, "two", state if state == "live" else "refreshed")


def test_ids_generated_by_the_database_are_valid_and_ascend(environment: Environment) -> None:
    ids = [environment.consumer() for _ in range(50)]
    assert ids == sorted(set(ids))
    assert environment.order(ids[0]).startswith("ord_")


def test_connection_is_usable_after_refused_statements(environment: Environment) -> None:
    with pytest.raises(psycopg.errors.NotNullViolation):
        environment.run("INSERT INTO consumers (environment_id) VALUES (NULL)")
    assert environment.consumer()
