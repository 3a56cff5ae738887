"""A consumer's totals equal the sum of its orders, after any history."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.database.conftest import Environment, new_environment
from tests.database.recomputed_totals import assert_totals_are_recomputed, order_value

# Few times, so that many orders share a time.
MOMENTS = st.integers(0, 4).map(lambda days: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=days))
STATUSES = st.sampled_from(["CREATED", "COMPLETED", "CANCELLED", "REFUNDED"])
AMOUNTS = st.decimals(0, 1_000_000, places=4) | st.sampled_from(
    [Decimal(n) for n in ("0", "0.0001", "3", "7", "99.99")]
)


@st.composite
def orders(draw: st.DrawFn) -> dict[str, Any]:
    amount = draw(AMOUNTS)
    share = draw(st.sampled_from([0, 0, 1, 2, 3]))
    refunded = (amount * share / 3).quantize(Decimal("0.0001"))
    base = draw(st.just(amount) | AMOUNTS)
    values = {"amount": amount, "refunded": min(refunded, amount), "base": base}
    return {"consumer": draw(st.integers(0, 2)), "status": draw(STATUSES), "placed_at": draw(MOMENTS), **values}


PLACES = st.lists(st.integers(0, 30), min_size=1, max_size=4)
STEPS = st.one_of(
    st.tuples(st.just("insert"), st.lists(orders(), min_size=1, max_size=5)),
    st.tuples(st.just("upsert"), st.lists(orders(), min_size=1, max_size=3)),
    st.tuples(st.just("merge"), st.lists(orders(), min_size=1, max_size=3)),
    st.tuples(st.just("status"), PLACES, STATUSES),
    st.tuples(st.just("move"), PLACES, st.integers(0, 2)),
    st.tuples(st.just("refund"), PLACES),
    st.tuples(st.just("replace"), PLACES, orders()),
    st.tuples(st.just("place"), PLACES, MOMENTS),
    st.tuples(st.just("delete"), PLACES),
    st.tuples(st.just("delete_newest"), st.integers(0, 2)),
    st.tuples(st.just("delete_consumer"), st.integers(0, 2)),
    st.tuples(st.just("tell"), st.integers(0, 2)),
)
FIELDS = "status, amount, refunded_amount, base_amount, placed_at"
ROWS = """jsonb_to_recordset(%(orders)s) AS n (
    external_id text, consumer_id text, status text, amount numeric, refunded numeric, base numeric,
    placed_at moment)"""
INSERT = f"""INSERT INTO orders (environment_id, consumer_id, external_id, {FIELDS}, currency_code)
    SELECT %(environment)s, consumer_id, external_id, status, amount, refunded, base, placed_at, 'USD' FROM {ROWS}"""
STATEMENTS = {
    "insert": INSERT,
    "upsert": INSERT
    + """ ON CONFLICT (environment_id, external_id) DO UPDATE SET consumer_id = excluded.consumer_id,
        status = excluded.status, amount = excluded.amount, refunded_amount = excluded.refunded_amount,
        base_amount = excluded.base_amount, placed_at = excluded.placed_at""",
    # A statement with inserts, updates and deletes.
    "merge": f"""MERGE INTO orders o USING (SELECT * FROM {ROWS}) n
        ON o.environment_id = %(environment)s AND o.external_id = n.external_id
        WHEN MATCHED AND n.status = 'REFUNDED' THEN DELETE
        WHEN MATCHED THEN UPDATE SET consumer_id = n.consumer_id, status = n.status, placed_at = n.placed_at
        WHEN NOT MATCHED THEN INSERT (environment_id, consumer_id, external_id, {FIELDS}, currency_code)
        VALUES (%(environment)s, consumer_id, external_id, status, amount, refunded, base, placed_at, 'USD')""",
    "status": "UPDATE orders SET status = %(value)s WHERE id = ANY(%(ids)s)",
    "move": "UPDATE orders SET consumer_id = %(consumer)s WHERE id = ANY(%(ids)s)",
    "refund": "UPDATE orders SET refunded_amount = trunc(amount / 3, 4) WHERE id = ANY(%(ids)s)",
    # Removed and restored in the same statement; the triggers run after both.
    "replace": f"WITH gone AS (DELETE FROM orders WHERE id = ANY(%(ids)s)) {INSERT}",
    "place": "UPDATE orders SET placed_at = %(value)s WHERE id = ANY(%(ids)s)",
    "delete": "DELETE FROM orders WHERE id = ANY(%(ids)s)",
    "delete_newest": """DELETE FROM orders WHERE id = (
        SELECT id FROM orders WHERE consumer_id = %(consumer)s ORDER BY placed_at DESC LIMIT 1)""",
    "delete_consumer": "DELETE FROM consumers WHERE id = %(consumer)s",
    "tell": """UPDATE consumers SET total_orders = 7, total_order_value = -1, last_order_at = now()
        WHERE id = %(consumer)s""",
}


class History:
    """Runs steps of a history; a deleted consumer is replaced by a new consumer."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._consumers = [environment.consumer() for _ in range(3)]
        self._number = 0

    def step(self, name: str, *arguments: Any) -> None:
        values: dict[str, Any] = {"environment": self._environment.id}
        for argument in arguments:
            values |= self._values(name, argument)
        self._environment.connection.execute(STATEMENTS[name].encode(), values)
        if name == "delete_consumer":
            self._consumers[arguments[0]] = self._environment.consumer()

    def _values(self, name: str, argument: Any) -> dict[str, Any]:
        match argument:
            case int(index):
                return {"consumer": self._consumers[index]}
            case dict():
                return self._values(name, [argument])
            case [int(), *_]:
                order_ids = self._environment.rows(
                    "SELECT id FROM orders WHERE environment_id = %s ORDER BY id", self._environment.id
                )
                return {"ids": [order_ids[index % len(order_ids)][0] for index in argument] if order_ids else []}
            case list():
                return {"orders": Jsonb([self._order(name, order) for order in argument])}
        return {"value": argument}

    def _order(self, name: str, order: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        # Upserts and merges share a few external ids.
        external_id = f"{self._number % 3 if name in {'upsert', 'merge'} else f'own {self._number}'}"
        shown = {key: str(value) for key, value in order.items()}
        return shown | {"consumer_id": self._consumers[order["consumer"]], "external_id": external_id}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=25))
def test_totals_equal_a_plain_recomputation_after_any_history(
    environment: Environment, steps: list[tuple[Any, ...]]
) -> None:
    fresh = environment._replace(id=new_environment(environment.connection))
    history = History(fresh)
    for step in steps:
        # A statement that changes a row twice is refused, and changes nothing.
        with suppress(psycopg.errors.CardinalityViolation):
            history.step(*step)
        assert_totals_are_recomputed(fresh)


MONEY = st.decimals(0, Decimal("99999999999.9999"), places=4) | st.decimals(0, 10, places=4)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(amount=MONEY, base=MONEY, part=st.decimals(0, 1, places=6), status=STATUSES)
def test_order_value_is_rounded_half_even(
    environment: Environment, amount: Decimal, base: Decimal, part: Decimal, status: str
) -> None:
    refunded = min((amount * part).quantize(Decimal("0.0001")), amount)
    value = environment.value("SELECT order_value(%s, %s, %s, %s)", status, amount, refunded, base)
    assert value == order_value(status, amount, refunded, base)


@pytest.mark.parametrize(
    ("amount", "refunded", "base", "expected"),
    [
        ("2", "1", "0.0001", "0.0000"),  # 0.00005, to the even 0
        ("2", "1", "0.0003", "0.0002"),  # 0.00015, to the even 2
        ("2", "1", "0.0005", "0.0002"),  # 0.00025, to the even 2
        ("3", "1", "0.0001", "0.0001"),  # 0.000066…
        ("3", "2", "1", "0.3333"),
        ("0", "0", "5", "0"),
        ("999999999999.9999", "0.0001", "90000000000000", "89999999999999.9910"),
    ],
)
def test_order_value_at_the_edges(
    environment: Environment, amount: str, refunded: str, base: str, expected: str
) -> None:
    query = "SELECT order_value('CREATED', %s, %s, %s)"
    assert environment.value(query, Decimal(amount), Decimal(refunded), Decimal(base)) == Decimal(expected)


def test_totals_sent_with_an_insert_are_ignored(environment: Environment) -> None:
    insert = "INSERT INTO consumers (environment_id, total_orders, total_order_value) VALUES (%s, 3, 4) RETURNING id"
    assert environment.totals(environment.value(insert, environment.id)) == (0, 0, None)


def test_orders_inserted_by_copy_are_counted(environment: Environment) -> None:
    consumer = environment.consumer()
    columns = "environment_id, consumer_id, amount, currency_code, base_amount, placed_at"
    statement = f"COPY orders ({columns}) FROM STDIN".encode()
    with environment.connection.cursor() as cursor, cursor.copy(statement) as copy:
        for day in (1, 3, 2):
            copy.write_row((environment.id, consumer, Decimal("1.5"), "USD", Decimal("1.5"), f"2024-01-0{day}Z"))
    assert environment.totals(consumer) == (3, Decimal("4.5"), "2024-01-03 00:00:00+00")


def test_temporary_table_of_the_same_name_hides_no_change(environment: Environment) -> None:
    consumer = environment.consumer()
    environment.run("CREATE TEMP TABLE outbox (LIKE public.outbox)")
    environment.run("CREATE TEMP TABLE consumers (LIKE public.consumers)")
    insert = """INSERT INTO orders (environment_id, consumer_id, amount, currency_code, base_amount)
        VALUES (%s, %s, 5, 'USD', 5)"""
    environment.run("SET search_path = pg_temp, public")
    environment.run(insert, environment.id, consumer)
    environment.run("DROP TABLE pg_temp.outbox, pg_temp.consumers")
    assert environment.totals(consumer)[:2] == (1, 5)
    assert len(environment.changes()) == 2
