"""The only caller of OpenSearch for resources: searches of the read alias, with errors in the API's terms."""

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
    """The read alias, and the client to search it with."""

    client: AsyncOpenSearch
    alias: str


async def search(index: Index, body: Clause) -> Any:
    try:
        return await index.client.search(index=index.alias, body=msgspec.json.encode(body), params=PARAMS)
    except TransportError as error:
        # Of what a request can bring here, only these may be more, or other, than OpenSearch takes. It says of the
        # first that it is its own fault, where it finds out late.
        late = error.status_code == HTTPStatus.INTERNAL_SERVER_ERROR and "too many nested clauses" in str(error)
        if late or (isinstance(error, RequestError) and "too_many" in str(error)):
            raise Problem(HTTPStatus.BAD_REQUEST, "Validation failed", message="The question is too long") from None
        if not isinstance(error, RequestError) or "index_closed" in str(error):
            raise
        if "search_after" in body:
            raise Problem(HTTPStatus.BAD_REQUEST, "Validation failed", message="Invalid cursor") from None
        raise


async def satisfied(
    index: Index, environment_id: int, ids: Sequence[str], clauses: Sequence[Mapping[str, Clause]]
) -> dict[str, set[str]]:
    """Which clauses each of these rows satisfies, by name; rows that are not in the index satisfy none.

    Args:
        index: to search.
        environment_id: the rows' own.
        ids: of the rows.
        clauses: by name, in parts that are not too large for one query each.

    Raises:
        OpenSearchException: the index cannot answer.
    """
    found: dict[str, set[str]] = {name: set() for name in ids}
    # One after the other: the more there are, the less may they keep others from searching.
    for part in clauses:
        answer = await search(index, named(environment_id, ids, part))
        for hit in _decode(answer).hits.hits:
            found[hit.id].update(hit.matched_queries)
    return found


def named(environment_id: int, ids: Sequence[str], clauses: Mapping[str, Clause]) -> Clause:
    """Which of the clauses, each with a name, these rows satisfy."""
    should = [{"bool": {"filter": [clause], "_name": name}} for name, clause in clauses.items()]
    rows = {"bool": {"filter": [environment(environment_id), {"terms": {"id": list(ids)}}], "should": should}}
    return {"query": rows, "size": len(ids), "sort": ["_doc"], "_source": False, "track_total_hits": False}


def environment(environment_id: int) -> Clause:
    """The rows of one environment, without which nothing is asked."""
    return {"term": {"environmentId": str(environment_id)}}


def members(audience_id: str) -> Clause:
    """The stored members of an audience."""
    return {"term": {"audienceIds": audience_id}}
