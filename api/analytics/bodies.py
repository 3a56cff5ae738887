"""Bodies of live questions: the whole body is checked and converted before anything is sent."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from api.analytics.aggregations import Aggregations, Shape
from api.analytics.fields import FIELDS, SHOWN, Field, Kind, Refused, find, moment, number, text
from api.analytics.queries import Queries, members, single
from api.analytics.values import Place, integer, whole
from infra.exports.attributes import Attribute
from infra.filters.clauses import Clause
from infra.wire import time

MAX_SIZE = 10_000
SEARCH = ("query", "aggs", "aggregations", "size", "from", "sort", "search_after", "_source", "track_total_hits", "pit")
SORTED: tuple[Kind, ...] = ("keyword", "count", "money", "date")
MAX_SORTS = 4
BY_POSITION = {"_doc", "_shard_doc"}


class Form(NamedTuple):
    """The form of the answer, as parameters choose it."""

    total_as_number: bool = False
    """Whether the total is a number, in place of an object."""
    typed_keys: bool = False
    """Whether the name of an aggregation has the type before it."""


DEFAULT_FORM = Form()


class Search(NamedTuple):
    """A search for the index."""

    query: Clause
    options: dict[str, Any]
    """All other members of the body, converted."""
    shape: Shape
    sorted_by: tuple[str, ...]
    pit: str | None
    """The sealed id of a point in time."""
    form: Form = DEFAULT_FORM


def count(body: Any, attributes: Sequence[Attribute], region: str | None) -> Clause:
    """Return the query of a count.

    Raises:
        Refused: a member is not in the list.
    """
    given = members(body, "body", "query")
    return Queries(attributes, region).clause(given.get("query", {"match_all": {}}), "query")


def search(body: Any, attributes: Sequence[Attribute], region: str | None) -> Search:
    """Return a search.

    Raises:
        Refused: a member is not in the list, or the question would cost too much.
    """
    given = members(body, "body", *SEARCH)
    if "aggs" in given and "aggregations" in given:
        raise Refused("aggregations", "Not allowed beside aggs")
    queries = Queries(attributes, region)
    query = queries.clause(given.get("query", {"match_all": {}}), "query")
    options: dict[str, Any] = _paging(given)
    shape: Shape = {}
    for name in ("aggs", "aggregations"):
        if name in given:
            options["aggs"], shape = Aggregations(queries, attributes).convert(given[name], Place(name))
    sorted_by: tuple[str, ...] = ()
    if "sort" in given:
        options["sort"], sorted_by = _sort(given["sort"], attributes)
    if "search_after" in given:
        options["search_after"] = _after(given["search_after"], sorted_by)
    options["_source"] = _source(given.get("_source", True))
    return Search(query, options, shape, sorted_by, _pit(given))


def _paging(given: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"track_total_hits": given.get("track_total_hits", True)}
    if not isinstance(options["track_total_hits"], bool):
        options["track_total_hits"] = whole(options["track_total_hits"], "track_total_hits", 2**31 - 1)
    for name, default in (("size", 10), ("from", 0)):
        options[name] = whole(given.get(name, default), name, MAX_SIZE, least=0)
    if options["size"] + options["from"] > MAX_SIZE:
        raise Refused("from", f"from and size are at most {MAX_SIZE} together: use search_after, or an export")
    if "search_after" in given:
        del options["from"]
    return options


def _sort(value: Any, attributes: Sequence[Attribute]) -> tuple[list[Any], tuple[str, ...]]:
    entries = value if isinstance(value, list) else [value]
    if not 1 <= len(entries) <= MAX_SORTS:
        raise Refused("sort", f"Must be a list of 1 to {MAX_SORTS} fields")
    converted, names = list[Any](), list[str]()
    for index, entry in enumerate(entries):
        path = f"sort[{index}]"
        name, order = (entry, "asc") if isinstance(entry, str) else single(entry, path)
        if isinstance(order, dict):
            order = members(order, path, "order").get("order", "asc")
        if order not in ("asc", "desc"):
            raise Refused(path, "The order is asc or desc")
        if name in BY_POSITION:
            # The values would tell how many documents all merchants have.
            raise Refused(path, "Not allowed: sort by id, or by createdAt and id, which are read as fast")
        find(name, path, attributes, *SORTED)
        # Said explicitly: by default, OpenSearch 3.8 passes over segments that only have missing values left, or fails.
        converted.append({name: {"order": order, "missing": "_last"}})
        names.append(name)
    return converted, tuple(names)


def _after(value: Any, sorted_by: Sequence[str]) -> list[Any]:
    if not isinstance(value, list) or not value or len(value) != len(sorted_by):
        raise Refused("search_after", "Must be the sort values of a hit, with the same sort")
    return [
        _position(FIELDS[name], each, f"search_after[{index}]")
        for index, (name, each) in enumerate(zip(sorted_by, value, strict=True))
    ]


def _position(field: Field, value: Any, path: str) -> Any:
    """Return a sort value for the index. A missing time has a number beyond all times, a missing text null."""
    if field.is_number:
        return number(value, path, field.unit)
    if field.kind == "date":
        return time(moment(value, path)) if isinstance(value, str) else integer(value, path)
    return None if value is None else text(value, path)


def _source(value: Any) -> Any:
    if isinstance(value, dict):
        value = members(value, "_source", "includes").get("includes", True)
    if value is True:
        return list(SHOWN)
    if value is False:
        return False
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name in SHOWN for name in names):
        raise Refused("_source", f"Must be true, false, or a list of {', '.join(SHOWN)}")
    return [name for name in SHOWN if name in names] or False


def _pit(given: dict[str, Any]) -> str | None:
    if "pit" not in given:
        return None
    pit = members(given["pit"], "pit", "id", "keep_alive").get("id")
    if not isinstance(pit, str):
        raise Refused("pit.id", "Must be the id of a point in time")
    return pit
