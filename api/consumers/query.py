"""What a list or a search asks of OpenSearch. Pure functions: parameters in, a `_search` body out."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from api.consumers import matching
from api.consumers.matching import Field
from api.search import environment
from infra.filters.clauses import Clause
from infra.index.terms import text_term
from infra.wire import time

Direction = Literal["asc", "desc"]
SortField = Literal["createdAt", "email", "fullName", "lastOrderAt", "totalOrderValue", "totalOrders"]

STANDING_IN = frozenset({"fullName", "lastOrderAt"})
"""What is sorted by a sub-field for each direction, which has a stand-in for null."""
OPPOSITE = {"asc": "desc", "desc": "asc", "_last": "_first"}


class Order(NamedTuple):
    """A total order. `prefix` are sort values that are the same for every row, so cursors leave them out."""

    clauses: list[dict[str, dict[str, str]]]
    prefix: list[str]

    @property
    def values(self) -> int:
        """How many sort values tell a row's place."""
        return len(self.clauses) - len(self.prefix)

    @property
    def creation(self) -> str | None:
        """Which way it goes, if it is by creation."""
        return self.clauses[-self.values].get("createdAt", {}).get("order")


def list_order(environment_id: int, sort_by: SortField, direction: Direction) -> Order:
    """The order of the list: by one field, nulls last, ties by id in the same direction."""
    way: dict[str, str] = {"order": direction}
    field = f"{sort_by}.{direction}" if sort_by in STANDING_IN else sort_by
    clauses = [{field: way | {"missing": "_last"} if sort_by == "email" else way}, {"id": way}]
    if (sort_by, direction) == ("createdAt", "desc"):
        # Named whole, the order is the one the index is kept in, and a page is read instead of sorted.
        return Order([{"environmentId": {"order": "asc"}}, *clauses], [str(environment_id)])
    return Order(clauses, [])


def search_order() -> Order:
    """Best match first, then the more recent order, then the newer consumer."""
    down = {"order": "desc"}
    return Order([{"_score": down}, {"lastOrderAt.desc": down}, {"id": down}], [])


def page(
    query: Clause,
    order: Order,
    size: int,
    place: Sequence[Any] | None,
    *,
    backward: bool = False,
    counted: bool = False,
) -> Clause:
    """One page of rows, and one more that tells whether the walk goes on.

    Args:
        query: which rows.
        order: their order.
        size: rows on the page.
        place: sort values of the row the page begins after (or, backward, ends before).
        backward: walk against the order; the rows come back in reverse.
        counted: count all rows, exactly.
    """
    clauses = order.clauses
    if backward:
        clauses = [
            {field: {name: OPPOSITE[value] for name, value in way.items()} for field, way in clause.items()}
            for clause in clauses
        ]
    body = {"query": query, "sort": clauses, "size": size + 1, "track_total_hits": counted}
    return body if place is None else body | {"search_after": [*order.prefix, *place]}


def list_query(
    environment_id: int,
    *,
    search: str | None = None,
    region: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    conditions: Sequence[Clause] = (),
) -> Clause:
    """The rows of a list: one environment's, filtered. Nothing here is scored."""
    filters = [environment(environment_id)]
    if created_after or created_before:
        window = {"gte": created_after and time(created_after), "lt": created_before and time(created_before)}
        filters.append({"range": {"createdAt": {bound: moment for bound, moment in window.items() if moment}}})
    if search:
        filters.append(matching.filtering(search, region))
    return {"bool": {"filter": [*filters, *conditions]}}


def search_query(
    environment_id: int,
    q: str | None,
    exact: Mapping[Field, str],
    *,
    region: str | None,
    conditions: Sequence[Clause] = (),
    explain: bool = False,
) -> Clause:
    """The rows of a search: all that is given holds, and `q` ranks them.

    Args:
        environment_id: whose rows.
        q: words.
        exact: whole fields.
        region: where national telephone numbers are of.
        conditions: further filters.
        explain: name what matches (`matching.explained`).
    """
    filters = [environment(environment_id), *conditions]
    filters += [_exact(field, text, region) for field, text in exact.items()]
    if q is None:
        return {"bool": {"filter": filters}}
    told = {"should": _unscored(matching.explaining(q, region))} if explain else {}
    return {"bool": {"filter": filters, "must": [matching.ranking(q, region)], **told}}


def within(body: Clause, rows: Clause) -> Clause:
    """The same page of some of its rows alone."""
    return body | {"query": {"bool": {"filter": [body["query"], rows]}}}


def count(query: Clause) -> Clause:
    """How many rows there are, exactly."""
    return {"query": query, "size": 0, "track_total_hits": True}


def _exact(field: Field, text: str, region: str | None) -> Clause:
    if field == "phone":
        return {"terms": {"phoneDigits": matching.phone_forms(text, region)}}
    if field == "externalId":
        return {"term": {field: text}}
    return {"term": {"texts": text_term(field, text)}}


def _unscored(clauses: Sequence[Clause]) -> list[Clause]:
    """What only tells, and neither finds nor ranks."""
    return [{"constant_score": {"filter": clause, "boost": 0}} for clause in clauses]
