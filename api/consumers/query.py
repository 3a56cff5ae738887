"""Bodies of `_search` requests for the list and the search. Pure functions: parameters in, a body out.

To add a sort:

1. Declare the field in `infra/index/mapping.py`, if it is not declared there. A new field or sub-field exists only in
   generations built later, so rebuild the index before clients use the sort.
2. Add the field to `SortField`: the request type and the OpenAPI document take the allowed values from `SortField`.
3. For a nullable field, decide how nulls come last. Add a keyword to `NULLABLE_KEYWORDS`. Any other type needs a
   sub-field for each direction (`_sorted` in `mapping.py`), and belongs in `NULL_SUBSTITUTED`.

To change the ranking of `q`, change `matching.ranking_clause`; to change the order of equal ranks, `search_order`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from api.consumers import matching
from api.consumers.explanations import explanation_clauses
from api.consumers.matching import Field
from api.search import in_environment
from infra.filters.clauses import Clause
from infra.filters.costs import MAX_CLAUSES, cost
from infra.index.former_terms import text_terms
from infra.phone_numbers import searched_digits
from infra.wire import time

Direction = Literal["asc", "desc"]
SortField = Literal["createdAt", "updatedAt", "email", "fullName", "lastOrderAt", "totalOrderValue", "totalOrders"]

NULL_SUBSTITUTED = frozenset({"fullName", "lastOrderAt"})
"""Fields sorted by the sub-fields `asc` and `desc`, each with a separate substitute for null."""
NULLABLE_KEYWORDS = frozenset({"email"})
"""Keywords that may be null: OpenSearch sorts nulls last by the option `missing`."""
REVERSED = {"asc": "desc", "desc": "asc", "_last": "_first"}


class Order(NamedTuple):
    """A total order. `prefix` holds leading sort values common to all rows, left out of cursors."""

    clauses: list[dict[str, dict[str, str]]]
    prefix: list[str]
    sort_by: SortField | None = None
    """The field of a list; None for a search."""
    direction: Direction = "desc"

    @property
    def position_length(self) -> int:
        """The number of sort values in a row's position."""
        return len(self.clauses) - len(self.prefix)


def list_order(environment_id: int, sort_by: SortField, direction: Direction) -> Order:
    """Return the order of the list: by a field, nulls last, ties by id in the same direction."""
    options: dict[str, str] = {"order": direction}
    field = f"{sort_by}.{direction}" if sort_by in NULL_SUBSTITUTED else sort_by
    clauses = [{field: options | {"missing": "_last"} if sort_by in NULLABLE_KEYWORDS else options}, {"id": options}]
    if (sort_by, direction) == ("createdAt", "desc"):
        # With the environment in front, this is the storage order of the index: pages are read, not sorted.
        return Order([{"environmentId": {"order": "asc"}}, *clauses], [str(environment_id)], sort_by, direction)
    return Order(clauses, [], sort_by, direction)


def search_order() -> Order:
    """Return the order of a search: best match first, then the more recent order, then the newer consumer."""
    descending = {"order": "desc"}
    return Order([{"_score": descending}, {"lastOrderAt.desc": descending}, {"id": descending}], [])


def page(
    rows: Clause,
    order: Order,
    size: int,
    position: Sequence[Any] | None,
    *,
    backward: bool = False,
) -> Clause:
    """Return the body for a page, plus one row that shows whether the list continues.

    Args:
        rows: query of the rows.
        order: their order.
        size: number of rows on the page.
        position: sort values of the row just before the page (or, backward, just after the page).
        backward: walk against the order; the rows come back in reverse.
    """
    clauses = order.clauses
    if backward:
        clauses = [
            {field: {name: REVERSED[value] for name, value in options.items()} for field, options in clause.items()}
            for clause in clauses
        ]
    body = {"query": rows, "sort": clauses, "size": size + 1, "track_total_hits": False}
    return body if position is None else body | {"search_after": [*order.prefix, *position]}


def list_query(
    environment_id: int,
    *,
    search: str | None = None,
    region: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    updated_after: datetime | None = None,
    updated_before: datetime | None = None,
    conditions: Sequence[Clause] = (),
) -> Clause:
    """Return the query of the list: the rows of an environment that pass all filters, without scores."""
    filters = [in_environment(environment_id)]
    filters += _between("createdAt", created_after, created_before)
    filters += _between("updatedAt", updated_after, updated_before)
    if search:
        filters.append(matching.filter_clause(search, region))
    return {"bool": {"filter": [*filters, *conditions]}}


def _between(field: str, first: datetime | None, end: datetime | None) -> list[Clause]:
    """Return the clause for times from `first` on, and before `end`; none without a bound."""
    bounds = {name: time(bound) for name, bound in (("gte", first), ("lt", end)) if bound}
    return [{"range": {field: bounds}}] if bounds else []


def search_query(
    environment_id: int,
    q: str | None,
    exact: Mapping[Field, str],
    *,
    region: str | None,
    conditions: Sequence[Clause] = (),
    explain: bool = False,
) -> Clause:
    """Return the query of a search: rows that match every parameter, scored by `q`.

    Args:
        environment_id: the environment to search.
        q: the words.
        exact: whole values, by field.
        region: country of national phone numbers, as two letters.
        conditions: further filters.
        explain: add named clauses that report the matches (`explanations.explanation_clauses`).
    """
    filters = [in_environment(environment_id), *conditions]
    filters += [_exact(field, text, region) for field, text in exact.items()]
    if q is None:
        return {"bool": {"filter": filters}}
    explanations = {"should": _unscored(explanation_clauses(q, region))} if explain else {}
    room = MAX_CLAUSES - cost({"bool": {"filter": filters, **explanations}})
    return {"bool": {"filter": filters, "must": [matching.ranking_clause(q, region, room)], **explanations}}


def within(body: Clause, rows: Clause) -> Clause:
    """Return the body restricted to some rows."""
    return body | {"query": {"bool": {"filter": [body["query"], rows]}}}


def count(rows: Clause) -> Clause:
    """Return the body for an exact count without rows."""
    return {"query": rows, "size": 0, "track_total_hits": True}


def _exact(field: Field, text: str, region: str | None) -> Clause:
    if field == "phone":
        return {"terms": {"phoneDigits": searched_digits(text, region)}}
    if field == "externalId":
        return {"term": {field: text}}
    return {"terms": {"texts": text_terms(field, text)}}


def _unscored(clauses: Sequence[Clause]) -> list[Clause]:
    """Wrap clauses to leave the selected rows and the scores unchanged."""
    return [{"constant_score": {"filter": clause, "boost": 0}} for clause in clauses]
