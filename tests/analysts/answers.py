"""PostgreSQL's own answers to the fifteen questions of docs/analysts-questions.md, and answers of the index as rows."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import phonenumbers

Row = tuple[Any, ...]

O = "FROM orders WHERE environment_id = :e"  # noqa: E741 (the orders)
C = "FROM consumers WHERE environment_id = :e"
FIRST = f"(SELECT consumer_id, min(placed_at) AS first {O} AND counts GROUP BY 1) f"
RFM = f"SELECT id, total_orders, total_order_value {C} AND total_orders > 0"
LAPSED = f"""
    SELECT id, last_order_at, total_order_value {C} AND total_orders >= 2 AND last_order_at < {{}} ORDER BY 3 DESC"""
PERCENTILES = f"SELECT percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY value) {O} AND counts"
PERCENTILES_OF_BUYERS = f"""
    SELECT percentile_cont(CAST(:ranks AS float[])) WITHIN GROUP (ORDER BY total_order_value)
    {C} AND total_orders > 0"""
COUNTRIES = f"SELECT phone, total_order_value {C}"
MEMBERS = """
    WITH m AS (
        SELECT audience_id, consumer_id FROM audience_members WHERE environment_id = :e
        UNION ALL SELECT a.id, c.id FROM audiences a JOIN consumers c ON c.environment_id = a.environment_id
        WHERE a.environment_id = :e AND a.type = 'DYNAMIC' AND c.metadata #>> '{loyalty,tier}' = 'gold')"""
STORED = {
    "Revenue by month": f"""
        SELECT date_trunc('month', placed_at), count(*), sum(value) {O} AND counts GROUP BY 1 ORDER BY 1""",
    "Cohorts by month of the first order": f"""
        SELECT date_trunc('month', first), (extract(year FROM placed_at) * 12 + extract(month FROM placed_at)
            - extract(year FROM first) * 12 - extract(month FROM first))::int, count(DISTINCT consumer_id), sum(value)
        FROM orders JOIN {FIRST} USING (consumer_id) WHERE environment_id = :e AND counts GROUP BY 1, 2""",
    "Repeat rate": f"SELECT avg((total_orders > 1)::int) {C} AND total_orders > 0",
    "Lapsed buyers: at least two orders, none for 180 days": LAPSED.format("now() - interval '180 days'"),
    "Share of the best tenth of the buyers": f"""
        SELECT sum(total_order_value) FILTER (WHERE tenth = 1) / sum(total_order_value)
        FROM (SELECT total_order_value, ntile(10) OVER (ORDER BY total_order_value DESC) AS tenth
              {C} AND total_orders > 0) t""",
    "Overlap of audiences": f"""{MEMBERS}
        SELECT a.name, b.name, count(*) FROM m x
        JOIN m y ON y.consumer_id = x.consumer_id AND y.audience_id > x.audience_id
        JOIN audiences a ON a.id = x.audience_id JOIN audiences b ON b.id = y.audience_id GROUP BY 1, 2""",
    "Days from the first to the second order": f"""
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY second::date - first::date) FROM (
            SELECT placed_at AS first, lead(placed_at) OVER w AS second, row_number() OVER w AS n {O} AND counts
            WINDOW w AS (PARTITION BY consumer_id ORDER BY placed_at, id)) t WHERE n = 1 AND second IS NOT NULL""",
    "Domains of e-mail addresses": f"""
        SELECT split_part(email, '@', 2), count(*), avg(total_orders) {C} GROUP BY 1 ORDER BY 2 DESC""",
    "Best-selling products": f"""
        SELECT line ->> 'productId', sum((line ->> 'quantity')::numeric),
            sum((line ->> 'quantity')::numeric * (line ->> 'unitAmount')::numeric), currency_code
        FROM (SELECT jsonb_array_elements(items) AS line, currency_code {O} AND counts) t GROUP BY 1, 4
        ORDER BY 2 DESC, 1, 4 LIMIT 20""",
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


def countries(rows: Iterable[Row]) -> list[Row]:
    """Return country, consumers and value of rows of `COUNTRIES`; None is the country of numbers not in E.164."""
    numbers, values = Counter[str | None](), Counter[str | None]()
    for phone, value in rows:
        country = _country_of(phonenumbers.parse(phone)) if phone and phone.startswith("+") else None
        numbers[country] += 1
        values[country] += value
    return [(country, number, values[country]) for country, number in numbers.items()]


def _country_of(number: phonenumbers.PhoneNumber) -> str:
    return str(
        phonenumbers.region_code_for_number(number)
        or phonenumbers.region_code_for_country_code(number.country_code or 0)
    )


def comparable(rows: Iterable[Any]) -> list[Row]:
    """Return rows in any order: numbers to nine digits, times as text with milliseconds."""

    def value(each: Any) -> Any:
        if isinstance(each, Decimal | float):
            return round(float(each), 9)
        if isinstance(each, datetime):
            return each.replace(tzinfo=None).isoformat(" ", "milliseconds")
        return f"{each} 00:00:00.000" if isinstance(each, date) else each

    return sorted((tuple(map(value, row)) for row in rows), key=str)


def _bucket_rows(answer: Mapping[str, Any], name: str, row: Callable[[Any], Row]) -> list[Row]:
    return [row(bucket) for bucket in answer["aggregations"][name]["buckets"]]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _country(bucket: Mapping[str, Any]) -> Row:
    return (bucket.get("key"), bucket["doc_count"], bucket["value"]["value"])


LIVE: dict[str, Callable[[Any], list[Row]]] = {
    "Recency, frequency, money": lambda answer: [
        (hit["_source"]["id"], hit["_source"]["totalOrders"], hit["_source"]["totalOrderValue"])
        for hit in answer["hits"]["hits"]
    ],
    "Repeat rate": lambda answer: [
        (answer["aggregations"]["returning"]["doc_count"] / answer["hits"]["total"]["value"],)
    ],
    "Lapsed buyers: at least two orders, none for 180 days": lambda answer: [
        (hit["_id"], _time(hit["_source"]["lastOrderAt"]), hit["_source"]["totalOrderValue"])
        for hit in answer["hits"]["hits"]
    ],
    "Overlap of audiences": lambda answer: [
        ("newsletter", "vip", bucket["doc_count"])
        for bucket in answer["aggregations"]["overlap"]["buckets"]
        if bucket["key"] == "A&B"
    ],
    "Countries of phone numbers": lambda answer: [
        *_bucket_rows(answer, "countries", _country),
        _country(answer["aggregations"]["none"]),
    ],
    "Domains of e-mail addresses": lambda answer: _bucket_rows(
        answer, "domains", lambda bucket: (bucket["key"], bucket["doc_count"], bucket["orders"]["value"])
    ),
    "Consumers without an order, by month of creation": lambda answer: _bucket_rows(
        answer,
        "months",
        lambda bucket: (_time(bucket["key_as_string"]), bucket["without"]["doc_count"] / bucket["doc_count"]),
    ),
}
"""By title: the rows in an answer of the index that can be compared with PostgreSQL's."""
