"""Answers of live questions: money in the currency's unit, exact, and attributes without their paths."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from api.analytics.aggregations import Aggregation, Shape
from api.analytics.buckets import SEPARATOR

SQUARED = {"sum_of_squares", "variance", "variance_population", "variance_sampling"}
UNCHANGED = {"count"}
RANKS, VALUES = "percentile_ranks", "values"

encode = msgspec.json.Encoder(decimal_format="number").encode


def aggregations(answer: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """Convert the aggregations of an answer."""
    return {name: _aggregation(answer[name], aggregation) for name, aggregation in shape.items()}


def money(value: Any, unit: int, *, is_squared: bool = False) -> Any:
    """Return an amount in the currency's unit. A whole number of the smallest unit is exact."""
    if not isinstance(value, int | float) or unit == 1:
        return value
    divisor = unit**2 if is_squared else unit
    exact = Decimal(int(value)) / divisor if value == int(value) else Decimal(repr(value)) / divisor
    return int(exact) if exact == int(exact) else exact.normalize()


def _aggregation(answer: dict[str, Any], aggregation: Aggregation) -> Any:
    unit = aggregation.field.unit if aggregation.field else 1
    if "buckets" in answer:
        buckets = answer["buckets"]
        if isinstance(buckets, dict):
            return answer | {"buckets": {name: _bucket(bucket, aggregation) for name, bucket in buckets.items()}}
        return answer | {"buckets": [_bucket(bucket, aggregation) for bucket in buckets]}
    if "doc_count" in answer:
        return _bucket(answer, aggregation)
    if VALUES in answer:
        return {VALUES: _percentiles(answer[VALUES], aggregation, unit)}
    return {name: _number(name, value, unit) for name, value in answer.items()}


def _percentiles(values: Any, aggregation: Aggregation, unit: int) -> Any:
    if aggregation.kind == RANKS:
        ranks = [entry | {"key": money(entry["key"], unit)} for entry in values]
        return {str(entry["key"]): entry["value"] for entry in ranks} if aggregation.is_keyed else ranks
    if isinstance(values, dict):
        return {name: money(value, unit) for name, value in values.items()}
    return [entry | {"value": money(entry["value"], unit)} for entry in values]


def _number(name: str, value: Any, unit: int) -> Any:
    if isinstance(value, dict):  # std_deviation_bounds
        return {inner: money(number, unit) for inner, number in value.items()}
    return value if name in UNCHANGED else money(value, unit, is_squared=name in SQUARED)


def _bucket(bucket: dict[str, Any], aggregation: Aggregation) -> dict[str, Any]:
    field = aggregation.field
    converted = bucket | aggregations(bucket, aggregation.inner)
    if field and field.kind == "money":
        for name in ("from", "to", *(["key"] if aggregation.kind == "histogram" else [])):
            if name in converted:
                converted[name] = money(converted[name], field.unit)
    if field and field.kind == "attribute":
        converted["key"] = converted["key"].partition(SEPARATOR)[2]
    return converted
