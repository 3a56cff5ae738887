"""Queries of live questions: a list of kinds, and everything else is refused (contract.md §6)."""

from collections.abc import Callable, Sequence
from typing import Any

from api.analytics.fields import Field, Kind, Refused, find, value_of
from infra.exports.attributes import Attribute
from infra.filters.clauses import Clause
from infra.filters.clauses import clause as condition_clause
from infra.filters.conditions import Condition, Operator, kind_of, read_value

MAX_CLAUSES, MAX_DEPTH, MAX_VALUES = 256, 8, 1000
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
        if field.kind == "attribute":
            return self._condition(field, "EQUALS", [value], f"{path}.{name}")
        return {"term": {field.indexed: value_of(field, value, f"{path}.{name}")}}

    def _terms(self, content: Any, path: str, _: int) -> Clause:
        name, values = single(content, path)
        field = self._field(name, path)
        # An object would be a look-up of terms in another document.
        if not isinstance(values, list) or len(values) > MAX_VALUES:
            raise Refused(f"{path}.{name}", f"Must be a list of at most {MAX_VALUES} values")
        self._count(path, len(values) // 10)
        if field.kind == "attribute":
            return self._condition(field, "IN", values, f"{path}.{name}") if values else {"match_none": {}}
        converted = [value_of(field, value, f"{path}.{name}[{index}]") for index, value in enumerate(values)]
        return {"terms": {field.indexed: converted}}

    def _range(self, content: Any, path: str, _: int) -> Clause:
        name, bounds = single(content, path)
        field = find(name, f"{path}.{name}", self._attributes, "count", "money", "date", "attribute")
        given = members(bounds, f"{path}.{name}", *BOUNDS)
        if not given:
            raise Refused(f"{path}.{name}", f"Must have one of {', '.join(BOUNDS)}")
        if field.kind == "attribute":
            parts = [
                self._condition(field, BOUNDS[bound], [value], f"{path}.{name}.{bound}")
                for bound, value in given.items()
            ]
            return {"bool": {"filter": parts}}
        converted = {bound: value_of(field, value, f"{path}.{name}.{bound}") for bound, value in given.items()}
        return {"range": {field.indexed: converted}}

    def _exists(self, content: Any, path: str, _: int) -> Clause:
        name = members(content, path, "field").get("field")
        field = find(name, f"{path}.field", self._attributes, *SEARCHED, "group", "presence")
        if field.kind == "attribute":
            return self._condition(field, "EXISTS", [], path)
        # The names of the index without values of their own.
        return {"exists": {"field": field.indexed}}

    def _ids(self, content: Any, path: str, _: int) -> Clause:
        values = members(content, path, "values").get("values")
        return self._terms({"id": values}, path, 0)

    def _prefix(self, content: Any, path: str, _: int) -> Clause:
        name, value = single(content, path)
        field = find(name, f"{path}.{name}", self._attributes, "keyword")
        if isinstance(value, dict):
            value = members(value, f"{path}.{name}", "value").get("value")
        return {"prefix": {field.indexed: value_of(field, value, f"{path}.{name}")}}

    def _field(self, name: str, path: str) -> Field:
        return find(name, f"{path}.{name}", self._attributes, *SEARCHED)

    def _condition(self, field: Field, operator: Operator, values: list[Any], path: str) -> Clause:
        kind = kind_of(field.indexed)
        assert kind, "declared paths are fields"
        if operator == "IN" and len(values) > MAX_VALUES // 10:
            raise Refused(path, f"Must be a list of at most {MAX_VALUES // 10} values")
        try:
            converted = [read_value(kind, operator, value) for value in values]
        except ValueError as error:
            raise Refused(path, str(error)) from None
        return condition_clause(Condition(field.indexed, operator, converted), self._region)


def single(value: Any, path: str) -> tuple[str, Any]:
    """Return the only member of an object.

    Raises:
        Refused: the value is not an object with one member.
    """
    if not isinstance(value, dict) or len(value) != 1:
        raise Refused(path, "Must be an object with one member")
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
