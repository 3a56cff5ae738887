"""Rows of the outbox: one per changed consumer and statement, with version, lane, request and transaction."""

from typing import LiteralString

import psycopg
import pytest

from tests.database.conftest import Environment

MANY: LiteralString = """
    INSERT INTO consumers (environment_id, full_name) SELECT %s, 'Name ' || n FROM generate_series(1, 500) AS n"""


def test_statement_of_many_rows_records_each_once_by_one_insert(environment: Environment) -> None:
    """Rows appended by the same INSERT share its command id (`cmin`)."""
    statements: list[LiteralString] = [
        "UPDATE consumers SET full_name = full_name || '!' WHERE environment_id = %s",
        "DELETE FROM consumers WHERE environment_id = %s",
    ]
    for statement in (MANY, *statements):
        mark = environment.mark()
        with environment.connection.transaction():
            environment.run(statement, environment.id)
            [commands] = environment.row("SELECT count(DISTINCT cmin::text) FROM outbox WHERE seq > %s", mark)
        assert commands == 1
        recorded = environment.changes_since(mark)
        assert len(recorded) == len({row[0] for row in recorded}) == 500


def test_changes_of_a_statement_are_in_the_order_of_ids(environment: Environment) -> None:
    """The drain reads rows and replaces documents in this order, and random order costs a fifth of its speed."""
    environment.run(MANY, environment.id)
    mark = environment.mark()
    environment.run("UPDATE consumers SET full_name = 'Other' WHERE environment_id = %s", environment.id)
    recorded = environment.rows("SELECT consumer_id FROM outbox WHERE seq > %s ORDER BY seq", mark)
    assert len(recorded) == 500
    assert recorded == sorted(recorded)


def test_outbox_has_the_row_version_and_one_more_for_a_delete(environment: Environment) -> None:
    environment.run(MANY, environment.id)
    versions: LiteralString = "SELECT id, version FROM consumers WHERE environment_id = %s ORDER BY 1"
    rows = environment.rows(versions, environment.id)
    assert environment.changes() == rows
    mark = environment.mark()
    environment.run("DELETE FROM consumers WHERE environment_id = %s", environment.id)
    assert environment.changes_since(mark) == [(consumer, version + 1) for consumer, version in rows]


def test_upsert_records_inserted_and_changed_rows(environment: Environment) -> None:
    upsert: LiteralString = """
        INSERT INTO consumers (environment_id, external_id, full_name) SELECT %s, n, %s FROM unnest(%s::text[]) AS n
        ON CONFLICT (environment_id, external_id) DO UPDATE SET full_name = excluded.full_name"""
    environment.run(upsert, environment.id, "Same", ["a", "b"])
    mark = environment.mark()
    environment.run(upsert, environment.id, "Same", ["a", "b", "c"])
    assert len(environment.changes_since(mark)) == 1
    environment.run(upsert, environment.id, "Other", ["a", "b", "c", "d"])
    assert len(environment.changes_since(mark)) == 5


def test_merge_records_inserts_updates_and_deletes(environment: Environment) -> None:
    gone, changed = environment.consumer("gone"), environment.consumer("changed")
    mark = environment.mark()
    environment.run(
        """MERGE INTO consumers c USING (VALUES (%s, 'gone'), (%s, 'x'), ('new', 'y')) AS n (id, name) ON c.id = n.id
        WHEN MATCHED AND n.name = 'gone' THEN DELETE
        WHEN MATCHED THEN UPDATE SET full_name = n.name
        WHEN NOT MATCHED THEN INSERT (environment_id, full_name) VALUES (%s, n.name)""",
        gone,
        changed,
        environment.id,
    )
    recorded = {row[0] for row in environment.changes_since(mark)}
    assert len(recorded) == 3
    assert {gone, changed} < recorded


def test_statement_without_rows_records_nothing(environment: Environment) -> None:
    environment.consumer()
    mark = environment.mark()
    environment.run("UPDATE consumers SET full_name = 'x' WHERE environment_id = -1")
    environment.run("DELETE FROM consumers WHERE environment_id = -1")
    environment.run("INSERT INTO consumers (environment_id) SELECT 1 WHERE false")
    environment.run("DELETE FROM orders WHERE environment_id = -1")
    assert environment.mark() == mark


def test_rolled_back_change_leaves_no_outbox_row(environment: Environment) -> None:
    with environment.connection.transaction(force_rollback=True):
        environment.consumer()
        assert len(environment.changes()) == 1
    with environment.connection.transaction(), environment.connection.transaction(force_rollback=True):
        environment.consumer()
    assert environment.changes() == []


def test_outbox_row_has_the_top_level_transaction_id(environment: Environment) -> None:
    with environment.connection.transaction():
        writer = environment.value("SELECT pg_current_xact_id()::text")
        with environment.connection.transaction():
            environment.consumer()
    assert environment.value("SELECT xid::text FROM outbox WHERE environment_id = %s", environment.id) == writer


@pytest.mark.parametrize(
    ("lane", "expected"), [(None, "live"), ("live", "live"), ("bulk", "bulk"), ("", "live"), ("BULK '; x", "live")]
)
@pytest.mark.parametrize("request_id", [None, "", "r" * 100_000])
def test_lane_and_request_id_come_from_the_transaction(
    environment: Environment, lane: str | None, expected: str, request_id: str | None
) -> None:
    with environment.connection.transaction():
        for name, value in (("lane", lane), ("request_id", request_id)):
            if value is not None:
                environment.run("SELECT set_config('consumers.' || %s, %s, true)", name, value)
        environment.consumer()
    environment.consumer()  # the next transaction has the default lane and no request
    query: LiteralString = "SELECT lane, request_id FROM outbox WHERE environment_id = %s ORDER BY seq"
    assert environment.rows(query, environment.id) == [(expected, request_id or None), ("live", None)]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_changes_are_recorded_at_every_isolation_level(environment: Environment, level: str) -> None:
    environment.connection.isolation_level = psycopg.IsolationLevel[level.replace(" ", "_")]
    consumer = environment.consumer()
    environment.order(consumer)
    environment.run("DELETE FROM consumers WHERE id = %s", consumer)
    assert len(environment.changes()) == 3
