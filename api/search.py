"""The only caller of OpenSearch for resources. Searches the read alias and translates errors into the API's.

`api/consumers/query.py` builds the bodies of searches, and `api/consumers/fetch.py` reads pages. A consistency token is
checked before the search, in `api/consistency.py`.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from opensearchpy import AsyncOpenSearch
from opensearchpy.exceptions import RequestError, TransportError

from api.errors import Problem
from infra.filters.clauses import Clause
from infra.index.hits import Hit, SearchResponse

PARAMS: dict[str, Any] = {"allow_partial_search_results": "false"}

_decode = msgspec.json.Decoder(SearchResponse[Hit]).decode


class Index(NamedTuple):
    """A client, and the read alias to search."""

    client: AsyncOpenSearch
    alias: str


async def search(index: Index, body: Clause) -> Any:
    """Search; return the response as JSON text.

    Raises:
        Problem: 400 for a query too long for OpenSearch, or a cursor with values refused by OpenSearch.
        OpenSearchException: the index cannot answer.
    """
    try:
        return await index.client.search(index=index.alias, body=msgspec.json.encode(body), params=PARAMS)
    except TransportError as error:
        # A valid request can break OpenSearch's limits in two ways only: too many clauses, or refused sort values. If
        # OpenSearch notices too many clauses late, the status is 500 instead of 400.
        late = error.status_code == HTTPStatus.INTERNAL_SERVER_ERROR and "too many nested clauses" in str(error)
        if late or (isinstance(error, RequestError) and "too_many" in str(error)):
            message = "The query is too long: use fewer or shorter words and conditions"
            raise Problem(HTTPStatus.BAD_REQUEST, "Validation failed", message=message) from None
        if not isinstance(error, RequestError) or "index_closed" in str(error):
            raise
        if "search_after" in body:
            raise Problem(HTTPStatus.BAD_REQUEST, "Validation failed", message="Invalid cursor") from None
        raise


async def satisfied(
    index: Index, environment_id: int, ids: Sequence[str], clauses: Sequence[Mapping[str, Clause]]
) -> dict[str, set[str]]:
    """Return for each consumer the names of the satisfied clauses: none for a consumer missing from the index.

    Args:
        index: to search.
        environment_id: of the consumers.
        ids: of the consumers.
        clauses: by name, in groups, each small enough for a query.

    Raises:
        OpenSearchException: the index cannot answer.
    """
    names: dict[str, set[str]] = {consumer_id: set() for consumer_id in ids}
    # In sequence, because simultaneous queries would delay other requests.
    for group in clauses:
        response = _decode(await search(index, named_clauses(environment_id, ids, group)))
        for hit in response.hits.hits:
            names[hit.id].update(hit.matched_queries)
    return names


def named_clauses(environment_id: int, ids: Sequence[str], clauses: Mapping[str, Clause]) -> Clause:
    """Return the body of a search for the clauses, by name, satisfied by each consumer."""
    should = [{"bool": {"filter": [clause], "_name": name}} for name, clause in clauses.items()]
    filters = [in_environment(environment_id), {"terms": {"id": list(ids)}}]
    query = {"bool": {"filter": filters, "should": should}}
    return {"query": query, "size": len(ids), "sort": ["_doc"], "_source": False, "track_total_hits": False}


def in_environment(environment_id: int) -> Clause:
    """Return the clause that limits a query to an environment. Every query contains this clause."""
    return {"term": {"environmentId": str(environment_id)}}


def in_audience(audience_id: str) -> Clause:
    """Return the clause for the stored members of an audience."""
    return {"term": {"audienceIds": audience_id}}
