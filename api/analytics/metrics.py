"""Metrics of live questions: numbers of the consumers in a bucket."""

from collections.abc import Callable, Sequence
from typing import Any

from api.analytics import values
from api.analytics.fields import find
from api.analytics.queries import members
from api.analytics.values import Checked, Place
from infra.exports.attributes import Attribute

PRECISION, COMPRESSION = 3000, 1000
"""OpenSearch's highest precision of a cardinality; with this compression, percentiles are wrong by 0.04 % at most."""
PERCENTS = [1, 5, 25, 50, 75, 95, 99]
NUMBERS = {"stats": 5, "extended_stats": 17}
"""Numbers in the answer of a metric; 1 for all others."""
SKETCH_WORK = 8
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
        return Checked({"field": field.indexed}, field, numbers=NUMBERS.get(kind, 1))

    def _value_count(self, content: Any, place: Place) -> Checked:
        name = members(content, place.path, "field").get("field")
        field = find(name, f"{place.path}.field", self._attributes, "keyword", "count", "money", "date")
        return Checked({"field": field.indexed}, field._replace(kind="count"))

    def _cardinality(self, content: Any, place: Place) -> Checked:
        given = members(content, place.path, "field", "precision_threshold")
        # Not of domains: of two consumers, it would tell whether they share a domain.
        field = find(given.get("field"), f"{place.path}.field", self._attributes, "keyword", "count", "money", "date")
        threshold = values.whole(
            given.get("precision_threshold", PRECISION), f"{place.path}.precision_threshold", PRECISION
        )
        body = {"field": field.indexed, "precision_threshold": threshold}
        return Checked(body, field._replace(kind="count"), work=4 if field.is_number else 12, sketches=1)

    def _percentiles(self, content: Any, place: Place) -> Checked:
        given = members(content, place.path, "field", "percents", "keyed")
        field = find(given.get("field"), f"{place.path}.field", self._attributes, "count", "money")
        percents = values.percents(given.get("percents", PERCENTS), f"{place.path}.percents")
        keyed = values.flag(given, "keyed", place.path, default=True)
        body = {"field": field.indexed, "percents": percents, "keyed": keyed, "tdigest": {"compression": COMPRESSION}}
        return Checked(body, field, work=SKETCH_WORK, numbers=len(percents), sketches=1)

    def _percentile_ranks(self, content: Any, place: Place) -> Checked:
        given = members(content, place.path, "field", "values", "keyed")
        field = find(given.get("field"), f"{place.path}.field", self._attributes, "count", "money")
        ranks = values.numbers(given.get("values"), f"{place.path}.values", field.unit)
        keyed = values.flag(given, "keyed", place.path, default=True)
        # With a list, the answer has the values; as names they would be in the unit of the index.
        body = {"field": field.indexed, "values": ranks, "keyed": False, "tdigest": {"compression": COMPRESSION}}
        return Checked(body, field, work=SKETCH_WORK, numbers=len(ranks), sketches=1, is_keyed=keyed)
