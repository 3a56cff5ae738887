"""The only caller of OpenSearch for resources. Searches the read alias and translates errors into the API's.

`api/consumers/query.py` builds the bodies of searches, and `api/consumers/fetch.py` reads pages. A consistency token is
checked before the search, in `api/consistency.py`.

A request may need several searches. All together have `REQUEST_SECONDS`, after which OpenSearch stops the running
search. While the nodes of OpenSearch elect a cluster manager, a search is repeated, for longer if necessary. Searches
have a cost, known before they are sent, and need a place in the environment's budget.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, cast

import msgspec
from opensearchpy import AsyncOpenSearch
from opensearchpy.exceptions import ConnectionTimeout, RequestError, TransportError

from api.auth import Requester
from api.budget import Budget
from api.error_codes import ErrorCode
from api.errors import RETRY_AFTER_SECONDS, TOO_MANY_REQUESTS, Problem, invalid_cursor
from infra.filters.clauses import Clause
from infra.filters.costs import cost
from infra.index.hits import Hit, SearchResponse
from infra.index.nodes import is_unavailable
from infra.index.transports import CONFIRMED, AsyncNodes

REQUEST_SECONDS = 5.0
"""Time for all searches of a request together, waits for a place included."""
GRACE_SECONDS = 0.5
"""How much longer the client waits, so that OpenSearch reports the end of the time and a node is not taken as dead."""
RETRY_SECONDS = 0.2
"""Pause before a search is repeated while the nodes elect a cluster manager."""
LAST_SECONDS = 1.0
"""Time for the last repetition."""
EXPENSIVE = 450
"""A search with this cost takes OpenSearch about 40 ms, ten times as long as a usual search."""

_decode = msgspec.json.Decoder(SearchResponse[Hit]).decode


class Index(NamedTuple):
    """The index for the searches of a request."""

    client: AsyncOpenSearch
    alias: str
    """The read alias."""
    routing: str
    """The routing value of the environment: only its shards are searched."""
    budget: Budget
    requester: Requester
    ends_at: float
    """When the time for the request's searches ends, on the monotonic clock."""
    is_confirmed: bool = False
    """Whether the answers must contain a certain write (`infra/index/nodes.py`)."""


async def search(index: Index, body: Clause) -> Any:
    """Search; return the response as JSON text.

    Raises:
        Problem: 400 for a query too long for OpenSearch, or a cursor with values refused by OpenSearch; 429 if the
            environment has too many searches at a time; 503 if the time of the request has ended.
        OpenSearchException: the index cannot answer.
    """
    [response] = await _search_in_turn(index, [body])
    return response


async def _search_in_turn(index: Index, bodies: Sequence[Clause]) -> list[Any]:
    """Search one after the other, because simultaneous searches of a request would delay other requests."""
    expensive = sum(cost(body["query"]) for body in bodies) >= EXPENSIVE
    while True:
        try:
            async with index.budget.search(index.requester, expensive=expensive):
                return [await _search(index, body) for body in bodies]
        except TransportError as error:
            nodes = cast("AsyncNodes", index.client.transport)
            until = nodes.repeats_until(error)
            is_late = isinstance(error, ConnectionTimeout) and time.monotonic() >= index.ends_at
            # A search that is slow while others succeed must not be repeated.
            if (is_late and nodes.searches_succeed) or time.monotonic() >= until:
                raise
        # Without a place, because other searches of the environment may succeed.
        await asyncio.sleep(RETRY_SECONDS)
        index = index._replace(ends_at=max(index.ends_at, until, time.monotonic() + LAST_SECONDS))


async def _search(index: Index, body: Clause) -> Any:
    seconds = index.ends_at - time.monotonic()
    if seconds <= 0:
        raise _too_slow()
    params: dict[str, Any] = {
        "routing": index.routing,
        "allow_partial_search_results": "false",
        # A node that hangs holds up only its own searches: a node searches its own copy of a shard, if it has one.
        "preference": "_local",
        "cancel_after_time_interval": f"{int(seconds * 1000) + 1}ms",
        "request_timeout": seconds + GRACE_SECONDS,
        CONFIRMED: index.is_confirmed,
    }
    path, content = f"/{index.alias}/_search", msgspec.json.encode(body)
    try:
        # Without the client's method for searches, which takes 3 % of the processor time of a list.
        return await index.client.transport.perform_request("POST", path, params=params, body=content)
    except TransportError as error:
        is_stopped = error.error == "search_phase_execution_exception" and not is_unavailable(error)
        if is_stopped and time.monotonic() >= index.ends_at:
            raise _too_slow() from None
        # A valid request can break OpenSearch's limits in two ways only: too many clauses, or refused sort values. If
        # OpenSearch notices too many clauses late, the status is 500 instead of 400.
        late = error.status_code == HTTPStatus.INTERNAL_SERVER_ERROR and "too many nested clauses" in str(error)
        if late or (isinstance(error, RequestError) and "too_many" in str(error)):
            message = "The query is too long: use fewer or shorter words and conditions"
            raise Problem(HTTPStatus.BAD_REQUEST, "Validation failed", message=message) from None
        if not isinstance(error, RequestError) or "index_closed" in str(error):
            raise
        if "search_after" in body:
            raise invalid_cursor() from None
        raise


def _too_slow() -> Problem:
    message = (
        f"The search took more than {REQUEST_SECONDS:.0f} seconds: repeat it later, or use fewer and shorter conditions"
    )
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    status, code = HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.SEARCH_UNAVAILABLE
    return Problem(status, "Search unavailable", code=code, message=message, headers=headers)


async def ask(index: Index, body: Clause, *, seconds: float, pit: str | None = None) -> Any:
    """Search for a live question; return the response as JSON text. A part of the answer is no answer.

    Raises:
        Problem: 400 if OpenSearch refuses the question; 404 if the point in time has ended; 504 if the time has ended.
        OpenSearchException: the index cannot answer.
    """
    params: dict[str, Any] = {
        "request_timeout": seconds + GRACE_SECONDS,
        "cancel_after_time_interval": f"{int(seconds * 1000)}ms",
        "allow_partial_search_results": "false",
        # One shard of a node at a time: a question has time, and lists have not.
        "max_concurrent_shard_requests": 1,
    }
    if pit is None:
        params |= {"routing": index.routing, "preference": "_local"}
    began = time.monotonic()
    try:
        whole = None if pit else index.alias
        return await index.client.search(index=whole, body=msgspec.json.encode(body), params=params)
    except TransportError as error:
        if time.monotonic() >= began + seconds:
            message = f"The question took more than {seconds:.0f} seconds: ask for less, or use an export"
            status, code = HTTPStatus.GATEWAY_TIMEOUT, ErrorCode.QUESTION_TOO_SLOW
            raise Problem(status, "Question too slow", code=code, message=message) from None
        if pit is not None and error.status_code == HTTPStatus.NOT_FOUND:
            message = "The point in time has ended: make another"
            raise Problem(HTTPStatus.NOT_FOUND, "Not found", message=message) from None
        if error.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise _too_busy() from None
        if not isinstance(error, RequestError) or "index_closed" in str(error):
            raise
        message = "The index refuses this question: ask for less, or use an export"
        raise Problem(HTTPStatus.BAD_REQUEST, "Validation failed", message=message) from None


def _too_busy() -> Problem:
    """Build the 429 for a question that OpenSearch refuses, to protect its memory or its queue."""
    message = "The index has no room for this question now: repeat it later, or ask for less"
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    status, code = HTTPStatus.TOO_MANY_REQUESTS, ErrorCode.TOO_MANY_CONCURRENT_REQUESTS
    return Problem(status, TOO_MANY_REQUESTS, code=code, message=message, headers=headers)


async def open_point_in_time(index: Index, keep_alive: str) -> str:
    """Hold the index as it is now for a while; return the id of this point in time.

    Raises:
        OpenSearchException: the index cannot answer.
    """
    params = {"keep_alive": keep_alive, "routing": index.routing}
    created: Any = await index.client.create_pit(index=index.alias, params=params)
    pit: str = msgspec.json.decode(created)["pit_id"]
    return pit


async def close_points_in_time(index: Index, pits: Sequence[str]) -> None:
    """Release points in time.

    Raises:
        OpenSearchException: the index cannot answer.
    """
    await index.client.delete_pit(body={"pit_id": list(pits)})


async def satisfied(
    index: Index, environment_id: int, ids: Sequence[str], clauses: Iterable[Mapping[str, Clause]]
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
    bodies = [named_clauses(environment_id, ids, group) for group in clauses]
    for response in await _search_in_turn(index, bodies):
        for hit in _decode(response).hits.hits:
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
