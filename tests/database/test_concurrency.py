"""Totals and versions under concurrent writers, without deadlocks."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import LiteralString

import psycopg
import pytest
from psycopg import errors

from tests.database.conftest import Environment, Row
from tests.database.recomputed_totals import assert_totals_are_recomputed
from tests.waiting import wait_until

WRITERS = 10
INSERT: LiteralString = """
    INSERT INTO orders (environment_id, consumer_id, amount, currency_code, base_amount, placed_at)
    SELECT %s, %s, %s, 'USD', 1, '2024-01-01Z'::timestamptz + %s * interval '1 day' FROM generate_series(1, %s)"""
ANY_ORDER: LiteralString = "(SELECT id FROM orders WHERE consumer_id = %s ORDER BY random() LIMIT 1)"
NEWEST: LiteralString = "(SELECT id FROM orders WHERE consumer_id = %s ORDER BY placed_at DESC LIMIT 1)"
LOCK: LiteralString = "SELECT id FROM consumers WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
LOCK_ALL: LiteralString = "SELECT id FROM consumers WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
BLOCKED: LiteralString = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"


def run_concurrently(environment: Environment, work: Callable[[psycopg.Connection[Row], int], None]) -> None:
    """Run ten clients at once, each with a separate connection."""
    start = threading.Barrier(WRITERS)

    def client(number: int) -> None:
        with environment.connect() as connection:
            start.wait()
            work(connection, number)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(client, range(WRITERS)))


def test_ten_writers_on_one_consumer_leave_exact_totals(environment: Environment) -> None:
    consumer = environment.consumer()

    def work(connection: psycopg.Connection[Row], number: int) -> None:
        random = Random(number)
        for _ in range(40):
            statements: list[tuple[LiteralString, tuple[object, ...]]] = [
                (INSERT, (environment.id, consumer, random.randint(0, 9), random.randint(0, 5), random.randint(1, 3))),
                (f"DELETE FROM orders WHERE id = {ANY_ORDER}", (consumer,)),
                (f"DELETE FROM orders WHERE id = {NEWEST}", (consumer,)),
                (f"UPDATE orders SET status = 'CANCELLED' WHERE id = {ANY_ORDER}", (consumer,)),
                (f"UPDATE orders SET status = 'CREATED', placed_at = now() WHERE id = {ANY_ORDER}", (consumer,)),
                (f"UPDATE orders SET refunded_amount = amount / 2 WHERE id = {NEWEST}", (consumer,)),
            ]
            connection.execute(*random.choice(statements))

    run_concurrently(environment, work)
    assert_totals_are_recomputed(environment)
    recorded = [version for _, version in environment.changes()]
    assert len(recorded) == len(set(recorded))
    assert recorded[-1] == environment.version(consumer)


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_stricter_isolation_is_refused_instead_of_wrong_totals(
    environment: Environment, level: psycopg.IsolationLevel
) -> None:
    """A snapshot from before the lock would store a stale newest order, so the writer must repeat."""
    consumer = environment.consumer()
    with environment.connect() as strict:
        strict.isolation_level = level
        strict.autocommit = False
        strict.execute("SELECT 1 FROM orders")
        environment.order(consumer, placed_at="2024-05-05Z")
        with pytest.raises(errors.SerializationFailure):
            strict.execute(INSERT, (environment.id, consumer, 1, 1, 1))
    assert environment.totals(consumer) == (1, 10, "2024-05-05 00:00:00+00")


def test_newest_order_is_right_after_waiting_for_another_writer(environment: Environment) -> None:
    """The second writer's statement starts before the first commits."""
    consumer = environment.consumer()
    with environment.connect() as first, environment.connect() as second, ThreadPoolExecutor(1) as pool:
        with first.transaction():
            first.execute(INSERT, (environment.id, consumer, 1, 9, 1))
            waiting = pool.submit(second.execute, INSERT, (environment.id, consumer, 1, 5, 1))
            wait_until(lambda: environment.rows(BLOCKED, second.info.backend_pid), what="the second writer to wait")
        waiting.result()
    assert environment.totals(consumer) == (2, 2, "2024-01-10 00:00:00+00")


def test_documented_lock_order_never_deadlocks(environment: Environment) -> None:
    consumers = [environment.consumer() for _ in range(8)]
    insert: LiteralString = "INSERT INTO consumers (id, environment_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"
    delete: LiteralString = "DELETE FROM consumers WHERE id = ANY(%s)"
    order: LiteralString = """
        INSERT INTO orders (environment_id, consumer_id, amount, currency_code, base_amount)
        SELECT environment_id, id, 1, 'USD', 1 FROM consumers WHERE id = ANY(%s)"""

    def work(connection: psycopg.Connection[Row], number: int) -> None:
        random = Random(number)
        for _ in range(25):
            some = random.sample(consumers, 4)
            with connection.transaction():
                locked = [row[0] for row in connection.execute(LOCK_ALL if number % 2 else LOCK, (some,))]
                connection.execute(delete if number % 2 else order, (locked,))
            connection.execute(insert, (random.choice(consumers), environment.id))

    run_concurrently(environment, work)
    assert_totals_are_recomputed(environment)


@pytest.mark.parametrize("column", ["total_orders = -1", "full_name = 'x'", "version = version + 1", "email = 'x@y.z'"])
def test_consumer_may_change_while_its_orders_are_written(environment: Environment, column: str) -> None:
    consumer = environment.consumer()
    with environment.connect() as order, order.transaction():
        order.execute("SELECT FROM consumers WHERE id = %s FOR KEY SHARE", (consumer,))
        environment.run("SET lock_timeout = '1ms'")
        environment.connection.execute(f"UPDATE consumers SET {column} WHERE id = %s".encode(), (consumer,))


def test_writer_never_waits_for_an_indexer_with_its_row(environment: Environment) -> None:
    consumer = environment.consumer()
    with environment.connect() as drain, drain.transaction():
        drain.execute("SELECT FROM outbox WHERE environment_id = %s FOR UPDATE", (environment.id,))
        environment.run("SET lock_timeout = '1ms'")
        environment.run("UPDATE consumers SET full_name = 'Another' WHERE id = %s", consumer)
        environment.order(consumer)
        environment.run("DELETE FROM consumers WHERE id = %s", consumer)
    assert len(environment.changes()) == 4


def test_order_cost_does_not_grow_with_earlier_orders(environment: Environment) -> None:
    """An order costs a few index lookups, independent of the number of earlier orders."""
    small, large = environment.consumer(), environment.consumer()
    environment.run(INSERT, environment.id, small, 1, 1, 100)
    environment.run(INSERT, environment.id, large, 1, 1, 10_000)
    environment.run("VACUUM ANALYZE orders")
    pages: LiteralString = """
        SELECT sum(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)::int FROM pg_statio_user_tables
        WHERE relname IN ('consumers', 'orders', 'outbox') AND pg_stat_force_next_flush() IS NOT NULL"""

    def pages_read(consumer: str) -> int:
        """Return the pages read by an insert, updates and a delete of an order, with triggers; median of seven."""
        counts = []
        for _ in range(7):
            environment.run("SELECT pg_stat_force_next_flush()")
            before = environment.value(pages)
            order = environment.order(consumer)
            environment.run("UPDATE orders SET status = 'REFUNDED' WHERE id = %s", order)
            environment.run("UPDATE orders SET status = 'CREATED' WHERE id = %s", order)
            environment.run("DELETE FROM orders WHERE id = %s", order)
            environment.run("SELECT pg_stat_force_next_flush()")
            counts.append(environment.value(pages) - before)
        return int(sorted(counts)[3])

    first = pages_read(small)
    assert 0 < pages_read(large) <= 1.5 * first
