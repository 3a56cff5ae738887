"""Metrics of live questions: numbers of the consumers in a bucket."""

from collections.abc import Callable, Sequence
from typing import Any

from api.analytics import values
from api.analytics.fields import Refused, find
from api.analytics.queries import members
from api.analytics.values import Checked, Place
from infra.exports.attributes import Attribute

SMALL_BUCKETS = 100
"""Maximum of buckets around a cardinality or percentiles: both need much memory in each bucket."""
PRECISION, COMPRESSION = 3000, 1000
"""OpenSearch's highest precision of a cardinality; with this compression, percentiles are wrong by 0.04 % at most."""
PERCENTS = [1, 5, 25, 50, 75, 95, 99]
SIMPLE = ("sum", "avg", "min", "max", "stats", "extended_stats")


class Metrics:
    """Checks metrics, and converts them for the index."""

    def __init__(self, attributes: Sequence[Attribute]) -> None:
        self._attributes = attributes
        self.kinds: dict[str, Callable[[Any, Place], Checked]] = {
            **dict.fromkeys(SIMPLE, self._metric),
            "value_count": self._value_count,
            "cardinality": self._cardinality,
            "percentiles": self._percentiles,
            "percentile_ranks": self._percentile_ranks,
        }

    def _metric(self, content: Any, place: Place) -> Checked:
        name = members(content, place.path, "field").get("field")
        kind = place.path.rpartition(".")[2]
        dates = ("date",) if kind in {"min", "max"} else ()
        field = find(name, f"{place.path}.field", self._attributes, "count", "money", *dates)
        return Checked({"field": field.indexed}, field)

    def _value_count(self, content: Any, place: Place) -> Checked:
        name = members(content, place.path, "field").get("field")
        field = find(name, f"{place.path}.field", self._attributes, "keyword", "count", "money", "date")
        return Checked({"field": field.indexed}, field._replace(kind="count"))

    def _cardinality(self, content: Any, place: Place) -> Checked:
        given = members(content, place.path, "field", "precision_threshold")
        field = find(
            given.get("field"), f"{place.path}.field", self._attributes, "keyword", "group", "count", "money", "date"
        )
        threshold = values.whole(
            given.get("precision_threshold", PRECISION), f"{place.path}.precision_threshold", PRECISION
        )
        self._require_few(place)
        return Checked({"field": field.indexed, "precision_threshold": threshold}, field._replace(kind="count"))

    def _percentiles(self, content: Any, place: Place) -> Checked:
        given = members(content, place.path, "field", "percents", "keyed")
        field = find(given.get("field"), f"{place.path}.field", self._attributes, "count", "money")
        percents = values.numbers(given.get("percents", PERCENTS), f"{place.path}.percents")
        self._require_few(place)
        return Checked(
            {
                "field": field.indexed,
                "percents": percents,
                "keyed": values.keyed(given, default=True),
                "tdigest": {"compression": COMPRESSION},
            },
            field,
        )

    def _percentile_ranks(self, content: Any, place: Place) -> Checked:
        given = members(content, place.path, "field", "values", "keyed")
        field = find(given.get("field"), f"{place.path}.field", self._attributes, "count", "money")
        ranks = values.numbers(given.get("values"), f"{place.path}.values", field.unit)
        self._require_few(place)
        # With a list, the answer has the values; as names they would be in the unit of the index.
        body = {"field": field.indexed, "values": ranks, "keyed": False, "tdigest": {"compression": COMPRESSION}}
        return Checked(body, field, is_keyed=values.keyed(given, default=True))

    def _require_few(self, place: Place) -> None:
        if place.buckets > SMALL_BUCKETS:
            raise Refused(place.path, f"Allowed in at most {SMALL_BUCKETS} buckets, and there may be {place.buckets}")
