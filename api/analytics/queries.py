"""Queries of live questions: a list of kinds, and everything else is refused (contract.md §6)."""

from collections.abc import Callable, Sequence
from typing import Any

from api.analytics.fields import FIELDS, Field, Kind, Refused, bound, find, moment, text
from infra.exports.attributes import Attribute
from infra.filters.clauses import Clause
from infra.filters.clauses import clause as condition_clause
from infra.filters.conditions import Condition, Operator, kind_of, read_value
from infra.wire import time

MAX_CLAUSES, MAX_DEPTH, MAX_VALUES = 256, 8, 1000
VALUES_PER_CLAUSE = 10
"""Values of a list are looked up together."""
PREFIX_CLAUSES = 16
"""OpenSearch reads all values that begin so: of a million ids, for as long as this number of other clauses."""
OCCURRENCES = ("must", "filter", "should", "must_not")
BOUNDS: dict[str, Operator] = {
    "gt": "GREATER_THAN",
    "gte": "GREATER_THAN_OR_EQUAL",
    "lt": "LESS_THAN",
    "lte": "LESS_THAN_OR_EQUAL",
}
SEARCHED: tuple[Kind, ...] = ("keyword", "count", "money", "date", "attribute")


class Queries:
    """Checks the queries of a body, and converts them for the index. All queries of a body share the limits."""

    def __init__(self, attributes: Sequence[Attribute], region: str | None) -> None:
        self._attributes, self._region = attributes, region
        self._clauses = 0
        self._kinds: dict[str, Callable[[Any, str, int], Clause]] = {
            "match_all": self._match_all,
            "match_none": self._match_none,
            "bool": self._bool,
            "constant_score": self._constant_score,
            "term": self._term,
            "terms": self._terms,
            "range": self._range,
            "exists": self._exists,
            "ids": self._ids,
            "prefix": self._prefix,
        }

    def clause(self, value: Any, path: str, depth: int = 1) -> Clause:
        """Return the clause of a query.

        Raises:
            Refused: a member is not in the list, or the query is too long or too deep.
        """
        kind, content = single(value, path)
        if kind not in self._kinds:
            raise Refused(f"{path}.{kind}", f"Not allowed here: use {', '.join(self._kinds)}")
        self._count(path, 1)
        if depth > MAX_DEPTH:
            raise Refused(path, f"Queries are at most {MAX_DEPTH} levels deep")
        return self._kinds[kind](content, f"{path}.{kind}", depth)

    def _count(self, path: str, clauses: int) -> None:
        self._clauses += clauses
        if self._clauses > MAX_CLAUSES:
            raise Refused(path, f"A body has at most {MAX_CLAUSES} clauses")

    def _match_all(self, content: Any, path: str, _: int) -> Clause:
        members(content, path)
        return {"match_all": {}}

    def _match_none(self, content: Any, path: str, _: int) -> Clause:
        members(content, path)
        return {"match_none": {}}

    def _bool(self, content: Any, path: str, depth: int) -> Clause:
        given = members(content, path, *OCCURRENCES, "minimum_should_match")
        parts: dict[str, Any] = {}
        for name in OCCURRENCES:
            if name in given:
                queries = given[name] if isinstance(given[name], list) else [given[name]]
                parts[name] = [
                    self.clause(query, f"{path}.{name}[{index}]", depth + 1) for index, query in enumerate(queries)
                ]
        if (least := given.get("minimum_should_match")) is not None:
            if not isinstance(least, int) or isinstance(least, bool) or not 0 <= least <= MAX_CLAUSES:
                raise Refused(f"{path}.minimum_should_match", "Must be a number of clauses")
            parts["minimum_should_match"] = least
        return {"bool": parts}

    def _constant_score(self, content: Any, path: str, depth: int) -> Clause:
        given = members(content, path, "filter")
        return {"bool": {"filter": [self.clause(given.get("filter"), f"{path}.filter", depth + 1)]}}

    def _term(self, content: Any, path: str, _: int) -> Clause:
        name, value = single(content, path)
        field = self._field(name, path)
        if isinstance(value, dict):
            value = members(value, f"{path}.{name}", "value").get("value")
        if field.kind == "keyword":
            return {"term": {field.indexed: text(value, f"{path}.{name}")}}
        return self._condition(field, "EQUALS", [value], f"{path}.{name}")

    def _terms(self, content: Any, path: str, _: int) -> Clause:
        name, values = single(content, path)
        return self._in(self._field(name, path), values, f"{path}.{name}")

    def _in(self, field: Field, values: Any, path: str) -> Clause:
        # An object would be a look-up of terms in another document.
        if not isinstance(values, list) or len(values) > MAX_VALUES:
            raise Refused(path, f"Must be a list of at most {MAX_VALUES} values")
        self._count(path, len(values) // VALUES_PER_CLAUSE)
        if not values:
            return {"match_none": {}}
        if field.kind == "keyword":
            return {"terms": {field.indexed: [text(value, f"{path}[{index}]") for index, value in enumerate(values)]}}
        return self._condition(field, "IN", values, path)

    def _range(self, content: Any, path: str, _: int) -> Clause:
        name, bounds = single(content, path)
        field = find(name, f"{path}.{name}", self._attributes, "count", "money", "date", "attribute")
        given = members(bounds, f"{path}.{name}", *BOUNDS)
        if not given:
            raise Refused(f"{path}.{name}", f"Must have one of {', '.join(BOUNDS)}")
        if field.kind == "date":
            ends = {end: bound(value, f"{path}.{name}.{end}") for end, value in given.items()}
            return {"range": {field.indexed: ends}}
        parts = [self._condition(field, BOUNDS[end], [value], f"{path}.{name}.{end}") for end, value in given.items()]
        if field.kind == "attribute":
            return {"bool": {"filter": parts}}
        return {"range": {field.indexed: {end: value for part in parts for end, value in part["range"][name].items()}}}

    def _exists(self, content: Any, path: str, _: int) -> Clause:
        name = members(content, path, "field").get("field")
        field = find(name, f"{path}.field", self._attributes, *SEARCHED, "group", "presence")
        if field.kind in {"attribute", "presence"}:
            return self._condition(field, "EXISTS", [], path)
        return {"exists": {"field": field.indexed}}

    def _ids(self, content: Any, path: str, _: int) -> Clause:
        values = members(content, path, "values").get("values")
        return self._in(FIELDS["id"], values, f"{path}.values")

    def _prefix(self, content: Any, path: str, _: int) -> Clause:
        name, value = single(content, path)
        field = find(name, f"{path}.{name}", self._attributes, "keyword")
        if isinstance(value, dict):
            value = members(value, f"{path}.{name}", "value").get("value")
        self._count(path, PREFIX_CLAUSES - 1)
        return {"prefix": {field.indexed: text(value, f"{path}.{name}")}}

    def _field(self, name: str, path: str) -> Field:
        return find(name, f"{path}.{name}", self._attributes, *SEARCHED)

    def _condition(self, field: Field, operator: Operator, values: list[Any], path: str) -> Clause:
        """Return the clause of a condition as in filters: exact, also for values beyond those of the index."""
        kind = kind_of(field.indexed)
        assert kind, "fields and declared paths have a kind"
        converted = []
        for index, value in enumerate(values):
            each = f"{path}[{index}]" if operator == "IN" else path
            try:
                plain = time(moment(value, each)) if field.kind == "date" else value
                converted.append(read_value(kind, operator, plain))
            except ValueError as error:
                raise Refused(each, str(error)) from None
        return condition_clause(Condition(field.indexed, operator, converted), self._region)


def single(value: Any, path: str) -> tuple[str, Any]:
    """Return the only member of an object.

    Raises:
        Refused: the value is not an object with one member.
    """
    if not isinstance(value, dict) or len(value) != 1:
        raise Refused(path, "Must be an object with exactly one member")
    [(name, content)] = value.items()
    return name, content


def members(value: Any, path: str, *names: str) -> dict[str, Any]:
    """Return an object with only certain members.

    Raises:
        Refused: the value is no object, or has another member.
    """
    if not isinstance(value, dict):
        raise Refused(path, "Must be an object")
    for name in value:
        if name not in names:
            allowed = f"use {', '.join(names)}" if names else "nothing is allowed here"
            raise Refused(f"{path}.{name}", f"Not allowed here: {allowed}")
    return value
