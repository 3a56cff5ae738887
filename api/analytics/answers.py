"""Answers of live questions: money in the currency's unit, exact, and attributes without their paths.

An answer may have 10,000 hits or buckets, so it is converted in steps, between which other requests get their turn.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from api.analytics.aggregations import Aggregation, Shape
from api.analytics.bodies import Search
from api.analytics.buckets import SEPARATOR
from api.analytics.fields import FIELDS
from api.turns import Steps
from infra.index.documents import MONEY_UNIT

SQUARED = {"sum_of_squares", "variance", "variance_population", "variance_sampling"}
UNCHANGED = {"count"}
RANKS, VALUES = "percentile_ranks", "values"
TYPES = {"terms": "sterms", "percentiles": "tdigest_percentiles", "percentile_ranks": "tdigest_percentile_ranks"}
"""OpenSearch's types of aggregations, where they differ from the kind. `terms` of numbers are `lterms`."""
SHARDS = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
"""The shards in every answer: an answer is complete, and the number of shards is of no use to a client."""

encode = msgspec.json.Encoder(decimal_format="number").encode


class Hits(msgspec.Struct):
    """The hits of OpenSearch's response."""

    hits: list[msgspec.Raw]
    total: dict[str, Any] | None = None


class Found(msgspec.Struct):
    """OpenSearch's response."""

    took: int
    hits: Hits
    aggregations: dict[str, Any] = {}


_decode = msgspec.json.Decoder(Found).decode


def answer(response: str, question: Search) -> Steps[bytes]:
    """Convert a response of OpenSearch to an answer, as JSON."""
    found = _decode(response)
    yield
    hits = list[msgspec.Raw]()
    for hit in found.hits.hits:
        hits.append(msgspec.Raw(encode(_hit(msgspec.json.decode(hit), question))))
        yield
    total = found.hits.total
    shown: dict[str, Any] = {
        "took": found.took,
        "timed_out": False,
        "_shards": SHARDS,
        "hits": {
            **({} if total is None else {"total": total["value"] if question.form.total_as_number else total}),
            "max_score": None,
            "hits": hits,
        },
    }
    if question.shape:
        typed = question.form.typed_keys
        shown["aggregations"] = yield from aggregations(found.aggregations, question.shape, typed=typed)
    if question.pit is not None:
        shown["pit_id"] = question.pit
    return encode(shown)


def aggregations(answered: Mapping[str, Any], shape: Shape, *, typed: bool = False) -> Steps[dict[str, Any]]:
    """Convert the aggregations of a response. With `typed`, the type of each is put before its name."""
    converted = dict[str, Any]()
    for name, aggregation in shape.items():
        shown = f"{_type(aggregation)}#{name}" if typed else name
        converted[shown] = yield from _aggregation(answered[name], aggregation, typed=typed)
    return converted


def money(value: Any, unit: int, *, is_squared: bool = False) -> Any:
    """Return an amount in the currency's unit. A whole number of the smallest unit is exact."""
    if not isinstance(value, int | float) or unit == 1:
        return value
    divisor = unit**2 if is_squared else unit
    exact = Decimal(int(value)) / divisor if value == int(value) else Decimal(repr(value)) / divisor
    return int(exact) if exact == int(exact) else exact.normalize()


def _hit(hit: dict[str, Any], question: Search) -> dict[str, Any]:
    shown: dict[str, Any] = {"_index": "consumers", "_id": hit["_id"], "_score": None}
    if "_source" in hit:
        source = hit["_source"]
        if "totalOrderValue" in source:
            source["totalOrderValue"] = money(source["totalOrderValue"], MONEY_UNIT)
        shown["_source"] = source
    if question.sorted_by:
        units = [FIELDS[name].unit for name in question.sorted_by]
        shown["sort"] = [money(value, unit) for value, unit in zip(hit["sort"], units, strict=True)]
    return shown


def _type(aggregation: Aggregation) -> str:
    field = aggregation.field
    if aggregation.kind == "terms" and field and field.is_number:
        return "lterms"
    return TYPES.get(aggregation.kind, aggregation.kind)


def _aggregation(answered: dict[str, Any], aggregation: Aggregation, *, typed: bool) -> Steps[Any]:
    unit = aggregation.field.unit if aggregation.field else 1
    if "buckets" in answered:
        buckets = answered["buckets"]
        if isinstance(buckets, dict):
            named = dict[str, Any]()
            for name, bucket in buckets.items():
                named[name] = yield from _bucket(bucket, aggregation, typed=typed)
            return answered | {"buckets": named}
        listed = list[Any]()
        for bucket in buckets:
            listed.append((yield from _bucket(bucket, aggregation, typed=typed)))
        return answered | {"buckets": listed}
    if "doc_count" in answered:
        return (yield from _bucket(answered, aggregation, typed=typed))
    if VALUES in answered:
        return {VALUES: _percentiles(answered[VALUES], aggregation, unit)}
    return {name: _number(name, value, unit) for name, value in answered.items()}


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


def _bucket(bucket: dict[str, Any], aggregation: Aggregation, *, typed: bool) -> Steps[dict[str, Any]]:
    field = aggregation.field
    own = {name: value for name, value in bucket.items() if name not in aggregation.inner}
    converted = own | (yield from aggregations(bucket, aggregation.inner, typed=typed))
    if field and field.kind == "money":
        for name in ("from", "to", *(["key"] if aggregation.kind == "histogram" else [])):
            if name in converted:
                converted[name] = money(converted[name], field.unit)
    if field and field.kind == "attribute":
        converted["key"] = converted["key"].partition(SEPARATOR)[2]
    yield
    return converted
