"""The questions of docs/analysts.md, answered by DuckDB from an export, equal PostgreSQL's own answers."""

import re
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from infra.settings import ROOT
from tests.api.audiences import create_audience
from tests.api.exports import download, opened, request_export
from tests.service import Account, Service, new_account

PAGE = (ROOT / "docs/analysts.md").read_text("utf-8")
SECTION = PAGE.partition("\n## Questions and their SQL\n")[2].partition("\n## ")[0]
QUESTIONS = dict(re.findall(r"\*\*(.+?)\*\*\n\n```sql\n(.+?);\n```", SECTION, re.DOTALL))
FILL = """
    WITH c AS (
        INSERT INTO consumers (environment_id, email, phone, created_at)
        SELECT :e, 'a' || n || '@' || (ARRAY['one', 'two', 'three'])[n % 3 + 1] || '.example',
            (ARRAY['+442079460111', '+12025550123', NULL])[n % 3 + 1], timestamptz '2024-01-05Z' + n * interval '3 days'
        FROM generate_series(1, 60) AS n RETURNING id, created_at)
    INSERT INTO orders (environment_id, consumer_id, status, amount, refunded_amount, currency_code, base_amount,
        placed_at, items)
    SELECT :e, id, (ARRAY['CREATED', 'COMPLETED', 'COMPLETED', 'CANCELLED'])[n % 4 + 1], amount,
        CASE WHEN n % 5 = 0 THEN amount / 2 ELSE 0 END, (ARRAY['USD', 'EUR'])[n % 2 + 1], amount,
        created_at + n * interval '17 days 3 hours',
        jsonb_build_array(jsonb_build_object('productId', 'P' || n % 3, 'quantity', n, 'unitAmount', '1.25'))
    FROM (SELECT id, created_at, n, round((n * 7.13 + extract(day FROM created_at))::numeric, 2) AS amount
          FROM c CROSS JOIN generate_series(1, 9) AS n WHERE n < extract(day FROM created_at)::int % 10) AS o"""
MEMBERS = """
    INSERT INTO audience_members (environment_id, audience_id, consumer_id)
    SELECT :e, :audience, id FROM consumers WHERE environment_id = :e AND extract(day FROM created_at)::int % :n = 0"""
O = "FROM orders WHERE environment_id = :e"  # noqa: E741 (the orders)
C = "FROM consumers WHERE environment_id = :e"
FIRST = f"(SELECT consumer_id, min(placed_at) AS first {O} AND counts GROUP BY 1) f"
ANSWERS = {
    "Revenue by month": f"""
        SELECT date_trunc('month', placed_at), count(*), sum(value) {O} AND counts GROUP BY 1 ORDER BY 1""",
    "Cohorts by month of the first order": f"""
        SELECT date_trunc('month', first), (extract(year FROM placed_at) * 12 + extract(month FROM placed_at)
            - extract(year FROM first) * 12 - extract(month FROM first))::int, count(DISTINCT consumer_id), sum(value)
        FROM orders JOIN {FIRST} USING (consumer_id) WHERE environment_id = :e AND counts GROUP BY 1, 2""",
    "Repeat rate": f"SELECT avg((total_orders > 1)::int) {C} AND total_orders > 0",
    "Lapsed buyers: at least two orders, none for 180 days": f"""
        SELECT id, last_order_at, total_order_value {C} AND total_orders >= 2
            AND last_order_at < now() - interval '180 days' ORDER BY 3 DESC""",
    "Share of the best tenth of the buyers": f"""
        SELECT sum(total_order_value) FILTER (WHERE tenth = 1) / sum(total_order_value)
        FROM (SELECT total_order_value, ntile(10) OVER (ORDER BY total_order_value DESC) AS tenth
              {C} AND total_orders > 0) t""",
    "Overlap of audiences": """
        SELECT a.name, b.name, count(*) FROM audience_members x
        JOIN audience_members y ON y.consumer_id = x.consumer_id AND y.audience_id > x.audience_id
        JOIN audiences a ON a.id = x.audience_id JOIN audiences b ON b.id = y.audience_id
        WHERE x.environment_id = :e GROUP BY 1, 2""",
    "Days from the first to the second order": f"""
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY second::date - first::date) FROM (
            SELECT placed_at AS first, lead(placed_at) OVER w AS second, row_number() OVER w AS n {O} AND counts
            WINDOW w AS (PARTITION BY consumer_id ORDER BY placed_at, id)) t WHERE n = 1 AND second IS NOT NULL""",
    "Countries of phone numbers": f"""
        SELECT CASE left(phone, 3) WHEN '+44' THEN 'GB' WHEN '+12' THEN 'US' END, count(*), sum(total_order_value) {C}
        GROUP BY 1 ORDER BY 2 DESC""",
    "Domains of e-mail addresses": f"""
        SELECT split_part(email, '@', 2), count(*), avg(total_orders) {C} GROUP BY 1 ORDER BY 2 DESC""",
    "Best-selling products": f"""
        SELECT line ->> 'productId', sum((line ->> 'quantity')::numeric),
            sum((line ->> 'quantity')::numeric * (line ->> 'unitAmount')::numeric), currency_code
        FROM (SELECT jsonb_array_elements(items) AS line, currency_code {O} AND counts) t GROUP BY 1, 4""",
    "Refunds by month": f"""
        SELECT date_trunc('month', placed_at), currency_code, sum(refunded_amount), sum(amount) {O} GROUP BY 1, 2""",
    "New and returning buyers by month": f"""
        SELECT date_trunc('month', placed_at),
            count(DISTINCT consumer_id) FILTER (WHERE date_trunc('month', placed_at) = date_trunc('month', first)),
            count(DISTINCT consumer_id) FILTER (WHERE date_trunc('month', placed_at) > date_trunc('month', first))
        FROM orders JOIN {FIRST} USING (consumer_id) WHERE environment_id = :e AND counts GROUP BY 1 ORDER BY 1""",
    "Consumers without an order, by month of creation": f"""
        SELECT date_trunc('month', created_at), avg((total_orders = 0)::int) {C} GROUP BY 1 ORDER BY 1""",
}
COMPARED_ELSEWHERE = {"Recency, frequency, money", "Percentiles of the order value"}
"""The groups of `ntile` among equal values are free, and the percentiles are one list."""


@pytest.fixture(scope="module")
def shop(service: Service) -> Iterator[Account]:
    with new_account(service) as account:
        audiences = [create_audience(account, "STATIC", name)["id"] for name in ("A", "B")]
        with account.database.engine.begin() as connection:
            connection.execute(sa.text(FILL), {"e": account.live_environment})
            for audience, n in zip(audiences, (2, 3), strict=True):
                values = {"e": account.live_environment, "audience": audience, "n": n}
                connection.execute(sa.text(MEMBERS), values)
        yield account


@pytest.fixture(scope="module")
def export(shop: Account, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analysts") / "export"
    download(shop.live, request_export(shop.live), folder)
    return folder


def comparable(rows: Any) -> list[tuple[Any, ...]]:
    """Return rows in any order: numbers to nine digits, times as months or seconds."""

    def value(each: Any) -> Any:
        if isinstance(each, Decimal | float):
            return round(float(each), 9)
        if isinstance(each, datetime):
            return each.replace(tzinfo=None).isoformat(" ", "milliseconds")
        return f"{each} 00:00:00.000" if isinstance(each, date) else each

    return sorted((tuple(map(value, row)) for row in rows), key=str)


def asked(folder: Path, question: str) -> Any:
    with opened(folder) as database:
        # Without a package for time zones, Python gets times of a zone only as text.
        relation: duckdb.DuckDBPyConnection = database.execute(f"CREATE TEMP TABLE answer AS {question}")
        names = relation.execute("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'answer'")
        columns = [
            f'CAST("{name}" AS TIMESTAMP)' if "TIME ZONE" in kind else f'"{name}"' for name, kind in names.fetchall()
        ]
        return database.execute(f"SELECT {', '.join(columns)} FROM answer").fetchall()


def test_page_has_fifteen_questions_and_each_is_compared() -> None:
    assert len(QUESTIONS) == 15
    assert set(QUESTIONS) == ANSWERS.keys() | COMPARED_ELSEWHERE


@pytest.mark.parametrize("title", ANSWERS)
def test_answer_equals_that_of_the_database(shop: Account, export: Path, title: str) -> None:
    with shop.database.engine.connect() as connection:
        expected = comparable(connection.execute(sa.text(ANSWERS[title]), {"e": shop.live_environment}))
    assert expected
    assert comparable(asked(export, QUESTIONS[title])) == expected


def test_percentiles_and_ranks_equal_those_of_the_database(shop: Account, export: Path) -> None:
    [(percentiles,)] = asked(export, QUESTIONS["Percentiles of the order value"])
    query = f"SELECT percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY value) {O} AND counts"
    buyers = sa.text(f"SELECT id, total_orders, total_order_value {C} AND total_orders > 0")
    values = {"e": shop.live_environment}
    with shop.database.engine.connect() as connection:
        expected = connection.execute(sa.text(query), values).scalar_one()
        rows = comparable(connection.execute(buyers, values))
    assert [float(each) for each in percentiles] == pytest.approx(expected, abs=1e-4)
    ranked = asked(export, QUESTIONS["Recency, frequency, money"])
    assert comparable((row[0], row[2], row[3]) for row in ranked) == rows
    assert {rank for row in ranked for rank in row[4:]} == {1, 2, 3, 4, 5}
