"""Aggregations of live questions: a list of kinds, and the costs are known before anything is sent.

OpenSearch has no limit that protects its heap: the memory of an aggregation follows the values of its field, and two
small bodies can end a node. So each aggregation has a cost, known before it is sent (`costs.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from api.analytics import values
from api.analytics.buckets import Buckets
from api.analytics.costs import Costs
from api.analytics.fields import Field, Refused
from api.analytics.metrics import Metrics
from api.analytics.queries import Queries, single
from api.analytics.values import Place
from infra.exports.attributes import Attribute

MAX_AGGREGATIONS, MAX_LEVELS = 20, 3


class Aggregation(NamedTuple):
    """A requested aggregation, as far as the answer has to be converted."""

    kind: str
    field: Field | None
    inner: Mapping[str, "Aggregation"]
    is_keyed: bool


Shape = Mapping[str, Aggregation]


class Aggregations:
    """Checks the aggregations of a body, and converts them for the index."""

    def __init__(self, queries: Queries, attributes: Sequence[Attribute]) -> None:
        self._number = 0
        self._costs = Costs()
        self._kinds = Metrics(attributes).kinds | Buckets(queries, attributes).kinds

    def convert(self, value: Any, place: Place) -> tuple[dict[str, Any], Shape]:
        """Return aggregations for the index, and their shape.

        Raises:
            Refused: an aggregation is not in the list, or has too many buckets.
        """
        if not isinstance(value, dict) or not value:
            raise Refused(place.path, "Must be an object with aggregations")
        if place.level > MAX_LEVELS:
            raise Refused(place.path, f"Aggregations are at most {MAX_LEVELS} levels deep")
        converted: dict[str, Any] = {}
        shape: dict[str, Aggregation] = {}
        for name, aggregation in value.items():
            path = f"{place.path}.{name}"
            converted[values.name(name, path)], shape[name] = self._one(aggregation, place._replace(path=path))
        return converted, shape

    def _one(self, value: Any, place: Place) -> tuple[dict[str, Any], Aggregation]:
        self._number += 1
        if self._number > MAX_AGGREGATIONS:
            raise Refused(place.path, f"A body has at most {MAX_AGGREGATIONS} aggregations")
        given = dict(value) if isinstance(value, dict) else {}
        nested = [given.pop(name) for name in ("aggs", "aggregations") if name in given]
        kind, content = single(given, place.path)
        if kind not in self._kinds or len(nested) > 1:
            raise Refused(f"{place.path}.{kind}", f"Not allowed here: use {', '.join(self._kinds)}, and aggs once")
        checked = self._kinds[kind](content, place._replace(path=f"{place.path}.{kind}"))
        self._costs.add(checked, place)
        converted: dict[str, Any] = {kind: checked.body}
        inner: Shape = {}
        if nested:
            if not checked.buckets:
                raise Refused(f"{place.path}.aggs", f"{kind} has no buckets to aggregate in")
            within = Place(
                f"{place.path}.aggs",
                place.level + 1,
                place.buckets * checked.buckets,
                place.overlap * checked.overlap,
            )
            converted["aggs"], inner = self.convert(nested[0], within)
        return converted, Aggregation(kind, checked.field, inner, checked.is_keyed)
