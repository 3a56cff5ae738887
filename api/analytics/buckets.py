"""Buckets of live questions. Each kind declares a maximum, before anything is sent."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from api.analytics import values
from api.analytics.fields import Field, Kind, Refused, bound, find, moment, number, text
from api.analytics.queries import Queries, members, single
from api.analytics.values import Checked, Place
from infra.exports.attributes import Attribute
from infra.exports.tables import MIN_DOMAIN_CONSUMERS
from infra.wire import time

MAX_TERMS, MAX_FILTERS, MAX_MATRIX, MAX_SOURCES = 1000, 20, 10, 3
MAX_UNBOUNDED = 3
"""Groups by a field with any number of values in a body."""
COUNTRIES = 260
SEVERAL = 3
"""Values of a consumer, usually, in a field with several."""
ATTRIBUTE_WORK = 50
"""So a body has at most two groups by attributes: a million different values need 100 MB of the heap."""
FIRST_YEAR, LAST_YEAR = 1970, 2100
"""The time of a histogram without bounds."""
INTERVAL_DAYS = {
    **dict.fromkeys(("day", "1d"), 1),
    **dict.fromkeys(("week", "1w"), 7),
    **dict.fromkeys(("month", "1M"), 28),
    **dict.fromkeys(("quarter", "1q"), 90),
    **dict.fromkeys(("year", "1y"), 365),
}
SEPARATOR = "\0"
"""Between path and value in a term of an attribute."""


class Buckets:
    """Checks aggregations with buckets, and converts them for the index."""

    def __init__(self, queries: Queries, attributes: Sequence[Attribute]) -> None:
        self._queries, self._attributes = queries, attributes
        self._unbounded = 0
        self.kinds: dict[str, Callable[[Any, Place], Checked]] = {
            "filter": self._filter,
            "filters": self._filters,
            "adjacency_matrix": self._adjacency_matrix,
            "missing": self._missing,
            "range": self._range,
            "date_range": self._date_range,
            "histogram": self._histogram,
            "date_histogram": self._date_histogram,
            "terms": self._terms,
            "composite": self._composite,
        }

    def _filter(self, content: Any, place: Place) -> Checked:
        return Checked(self._queries.clause(content, place.path), None, 1)

    def _filters(self, content: Any, place: Place) -> Checked:
        filters = members(content, place.path, "filters").get("filters")
        named = self._named(filters, f"{place.path}.filters", MAX_FILTERS)
        return Checked({"filters": named}, None, len(named), overlap=len(named), work=len(named))

    def _adjacency_matrix(self, content: Any, place: Place) -> Checked:
        filters = members(content, place.path, "filters").get("filters")
        named = self._named(filters, f"{place.path}.filters", MAX_MATRIX)
        if any("&" in name for name in named):
            raise Refused(f"{place.path}.filters", "A name must not have &, which joins two names in the answer")
        pairs = len(named) * (len(named) + 1) // 2
        return Checked({"filters": named}, None, pairs, overlap=pairs, work=pairs)

    def _named(self, filters: Any, path: str, limit: int) -> dict[str, Any]:
        if not isinstance(filters, dict) or not 1 <= len(filters) <= limit:
            raise Refused(path, f"Must be an object with 1 to {limit} named queries")
        return {
            values.name(name, f"{path}.{name}"): self._queries.clause(query, f"{path}.{name}")
            for name, query in filters.items()
        }

    def _missing(self, content: Any, place: Place) -> Checked:
        name = members(content, place.path, "field").get("field")
        kinds: tuple[Kind, ...] = ("keyword", "group", "count", "money", "date")
        field = find(name, f"{place.path}.field", self._attributes, *kinds)
        return Checked({"field": field.indexed}, field, 1)

    def _range(self, content: Any, place: Place) -> Checked:
        given = members(content, place.path, "field", "ranges", "keyed")
        field = find(given.get("field"), f"{place.path}.field", self._attributes, "count", "money")
        entries, path = given.get("ranges"), f"{place.path}.ranges"
        ranges = values.ranges(entries, path, lambda value, end: number(value, end, field.unit), is_named=True)
        return self._ranges(ranges, field, values.flag(given, "keyed", place.path, default=False))

    def _date_range(self, content: Any, place: Place) -> Checked:
        given = members(content, place.path, "field", "ranges", "keyed")
        field = find(given.get("field"), f"{place.path}.field", self._attributes, "date")
        ranges = values.ranges(given.get("ranges"), f"{place.path}.ranges", bound, is_named=False)
        return self._ranges(ranges, field, values.flag(given, "keyed", place.path, default=False))

    def _ranges(self, ranges: list[dict[str, Any]], field: Field, keyed: bool) -> Checked:  # noqa: FBT001
        number = len(ranges)
        body = {"field": field.indexed, "ranges": ranges, "keyed": keyed}
        return Checked(body, field, number, overlap=number, work=1 + number // 4)

    def _histogram(self, content: Any, place: Place) -> Checked:
        given = members(content, place.path, "field", "interval", "hard_bounds", "min_doc_count")
        field = find(given.get("field"), f"{place.path}.field", self._attributes, "count", "money")
        interval = number(given.get("interval"), f"{place.path}.interval", field.unit)
        if interval <= 0:
            raise Refused(f"{place.path}.interval", "Must be greater than 0")
        if "hard_bounds" not in given:
            raise Refused(f"{place.path}.hard_bounds", 'Required, for example {"min": 0, "max": 1000}')
        bounds = members(given["hard_bounds"], f"{place.path}.hard_bounds", "min", "max")
        low, high = (
            number(bounds.get(name), f"{place.path}.hard_bounds.{name}", field.unit) for name in ("min", "max")
        )
        if high < low:
            raise Refused(f"{place.path}.hard_bounds", "min must not be greater than max")
        body = {"field": field.indexed, "interval": interval, "min_doc_count": values.least(given, place.path)}
        buckets = int((high - low) / interval) + 2
        return Checked(body | {"hard_bounds": {"min": low, "max": high}}, field, buckets, work=2)

    def _date_histogram(self, content: Any, place: Place) -> Checked:
        given = members(content, place.path, "field", "calendar_interval", "hard_bounds", "min_doc_count", "time_zone")
        checked = self._calendar(given, place)
        return checked._replace(body=checked.body | {"min_doc_count": values.least(given, place.path)})

    def _calendar(self, given: Mapping[str, Any], place: Place) -> Checked:
        field = find(given.get("field"), f"{place.path}.field", self._attributes, "date")
        interval = given.get("calendar_interval")
        if not isinstance(interval, str) or interval not in INTERVAL_DAYS:
            raise Refused(f"{place.path}.calendar_interval", f"Must be one of {', '.join(INTERVAL_DAYS)}")
        if given.get("time_zone", "UTC") != "UTC":
            raise Refused(f"{place.path}.time_zone", "Must be UTC")
        default = {"min": f"{FIRST_YEAR}-01-01", "max": f"{LAST_YEAR}-01-01"}
        bounds = members(given.get("hard_bounds", default), f"{place.path}.hard_bounds", "min", "max")
        low, high = (moment(bounds.get(name), f"{place.path}.hard_bounds.{name}") for name in ("min", "max"))
        if high < low:
            raise Refused(f"{place.path}.hard_bounds", "min must not be later than max")
        hard_bounds = {"min": time(low), "max": time(high)}
        body = {"field": field.indexed, "calendar_interval": interval, "hard_bounds": hard_bounds}
        return Checked(body, field, (high - low).days // INTERVAL_DAYS[interval] + 2, work=2)

    def _terms(self, content: Any, place: Place) -> Checked:
        given = members(content, place.path, "field", "size", "order", "min_doc_count")
        kinds: tuple[Kind, ...] = ("keyword", "group", "count", "attribute")
        field = find(given.get("field"), f"{place.path}.field", self._attributes, *kinds)
        if field.name == "id":
            raise Refused(f"{place.path}.field", "Every consumer would be a bucket: use composite, or an export")
        size = values.whole(given.get("size", 10), f"{place.path}.size", MAX_TERMS)
        least = values.least(given, place.path, MIN_DOMAIN_CONSUMERS if field.kind == "group" else 1)
        body = {"field": field.indexed, "size": size, "min_doc_count": least, "collect_mode": "breadth_first"}
        if "order" in given:
            body["order"] = values.order(given["order"], f"{place.path}.order")
        if field.kind == "attribute":
            path = field.indexed.removeprefix("metadata.")
            # By ordinals, OpenSearch would first number the attributes of all merchants, after every refresh.
            body |= {"field": "attributes", "include": f"{values.pattern(path)}{SEPARATOR}.*", "execution_hint": "map"}
        if field.name == "phoneCountry":
            return Checked(body, field, min(size, COUNTRIES), work=2)
        self._unbounded += 1
        if place.level > 1 or self._unbounded > MAX_UNBOUNDED:
            raise Refused(
                place.path,
                f"{field.name} may have any number of values: group by it at the top level, at most "
                f"{MAX_UNBOUNDED} times in a body, or use an export",
            )
        overlap = SEVERAL if field.kind == "attribute" or field.name == "audienceIds" else 1
        return Checked(body, field, size, overlap=overlap, work=ATTRIBUTE_WORK if field.kind == "attribute" else 4)

    def _composite(self, content: Any, place: Place) -> Checked:
        given = members(content, place.path, "sources", "size", "after")
        if place.level > 1:
            raise Refused(place.path, "Allowed at the top level only")
        size = values.whole(given.get("size", 10), f"{place.path}.size", MAX_TERMS)
        sources = given.get("sources")
        if not isinstance(sources, list) or not 1 <= len(sources) <= MAX_SOURCES:
            raise Refused(f"{place.path}.sources", f"Must be a list of 1 to {MAX_SOURCES} sources")
        converted: dict[str, tuple[Field, dict[str, Any]]] = {}
        for index, source in enumerate(sources):
            path = f"{place.path}.sources[{index}]"
            name, field, body = self._source(source, path)
            if name in converted:
                raise Refused(path, f"Two sources have the name {name!r}: give each a name of its own")
            converted[name] = field, body
        body = {"sources": [{name: source} for name, (_, source) in converted.items()], "size": size}
        if "after" in given:
            body["after"] = self._after(given["after"], f"{place.path}.after", converted)
        return Checked(body, None, size, overlap=SEVERAL, work=8 * len(converted), numbers=1 + len(converted))

    def _after(self, value: Any, path: str, sources: Mapping[str, tuple[Field, Any]]) -> dict[str, Any]:
        given = members(value, path, *sources)
        if given.keys() != sources.keys():
            raise Refused(path, f"Must have all of {', '.join(sources)}")
        after = dict[str, Any]()
        for name, (field, source) in sources.items():
            [options] = source.values()
            if given[name] is None:
                if not options.get("missing_bucket"):
                    raise Refused(f"{path}.{name}", "null needs missing_bucket in the source")
                after[name] = None
            elif field.kind == "keyword":
                after[name] = text(given[name], f"{path}.{name}")
            else:
                after[name] = values.integer(given[name], f"{path}.{name}")
        return after

    def _source(self, source: Any, path: str) -> tuple[str, Field, dict[str, Any]]:
        name, content = single(source, path)
        kind, options = single(content, f"{path}.{name}")
        place = Place(f"{path}.{values.name(name, path)}.{kind}")
        if kind == "terms":
            given = members(options, place.path, "field", "order", "missing_bucket")
            field = find(given.get("field"), f"{place.path}.field", self._attributes, "keyword", "count")
        elif kind == "date_histogram":
            given = members(options, place.path, "field", "calendar_interval", "order", "missing_bucket", "time_zone")
            field = find(given.get("field"), f"{place.path}.field", self._attributes, "date")
            self._calendar(given, place)
        else:
            raise Refused(place.path, "Not allowed here: use terms or date_histogram")
        if given.get("order", "asc") not in ("asc", "desc"):
            raise Refused(f"{place.path}.order", "Must be asc or desc")
        values.flag(given, "missing_bucket", place.path, default=False)
        return name, field, {kind: given}
