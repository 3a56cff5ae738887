"""The read path of each endpoint: the list, a search, an audience's members and their number, a consumer's audiences.

Combines the query (`query`), the page from OpenSearch (`fetch`), the audiences from PostgreSQL (`membership`) and the
wait for a consistency token (`api.consistency`).
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from http import HTTPStatus

import msgspec
from litestar.datastructures import State

from api import consistency
from api.answers import Answer
from api.audiences import membership
from api.audiences.membership import Audience
from api.audiences.schemas import AudienceReference
from api.auth import Caller
from api.budget import Budget
from api.consumers import fetch, query
from api.consumers.explanations import Match, explanations
from api.consumers.fetch import ExtraMembers, Hit, PageRequest
from api.consumers.schemas import ListParameters, SearchParameters
from api.cursors import MEMBERS_OF, Cursors
from api.errors import VALIDATION_FAILED, Problem
from api.request import AnyRequest
from api.search import REQUEST_SECONDS, Index
from infra.filters import language
from infra.filters.clauses import Clause, clause
from infra.filters.conditions import MAX_CLAUSES, clauses_of
from infra.index.naming import read_alias, routing


async def page(
    request: AnyRequest, state: State, caller: Caller, parameters: ListParameters, members_of: Audience | None = None
) -> Answer:
    """Return a page of the list; with `members_of`, only members of the audience.

    Raises:
        Problem: 404 for an unknown `audienceId`; 400 for an invalid cursor; 503 for a strict request with a
            consistency token not reached yet.
        OpenSearchException: the index cannot answer.
    """
    audiences = [members_of] if members_of else []
    if parameters.audience_id is not None:
        audiences.append(await membership.find(state.budget, caller, parameters.audience_id))
    rows = query.list_query(
        caller.environment_id,
        search=parameters.search,
        region=caller.region,
        created_after=parameters.created_after,
        created_before=parameters.created_before,
        updated_after=parameters.updated_after,
        updated_before=parameters.updated_before,
        conditions=_conditions(caller, parameters.filter, audiences),
    )
    identity = parameters.list_parameters() | ({MEMBERS_OF: members_of.id} if members_of else {})
    page_request = PageRequest(
        rows,
        query.list_order(caller.environment_id, *parameters.order()),
        parameters.paging(),
        Cursors(caller.seal, parameters.kind, identity, caller.environment_id),
        with_total=parameters.count,
    )
    extra_members = partial(_audiences_of_rows, state.budget, caller) if parameters.include else None
    return await _answer(request, state, caller, page_request, extra_members)


async def search(request: AnyRequest, state: State, caller: Caller, parameters: SearchParameters) -> Answer:
    """Return a page of a search.

    Raises:
        Problem, OpenSearchException: as `page`.
    """
    rows = query.search_query(
        caller.environment_id,
        parameters.q,
        parameters.exact(),
        region=caller.region,
        conditions=_conditions(caller, parameters.filter),
        explain=parameters.explain,
    )
    cursors = Cursors(caller.seal, parameters.kind, parameters.list_parameters(), caller.environment_id)
    page_request = PageRequest(rows, query.search_order(), parameters.paging(), cursors)
    extra_members = partial(_matches_of_rows, parameters, caller.region) if parameters.explain else None
    return await _answer(request, state, caller, page_request, extra_members)


async def audiences(
    request: AnyRequest, state: State, caller: Caller, consumer_id: str, possible: Sequence[Audience]
) -> tuple[bytes, dict[str, str]]:
    """Return the JSON member `audiences` of a consumer, and headers about freshness.

    Args:
        request: may carry a consistency token.
        state: of the application.
        caller: the environment to read.
        consumer_id: the consumer.
        possible: audiences that the consumer may be in (`membership.of_consumer`).
    """
    stored = {consumer_id: [audience.id for audience in possible if audience.rules is None]}

    async def find() -> list[AudienceReference]:
        [references] = await membership.references(index_of(request, state, caller), caller, possible, stored)
        return references

    references, headers = await consistency.read(request, caller, state.freshness, find)
    return _audiences_member(references), headers


async def count(request: AnyRequest, state: State, caller: Caller, audience: Audience) -> tuple[int, dict[str, str]]:
    """Count the members of an audience; also return headers about freshness."""
    rows = query.list_query(caller.environment_id, conditions=[audience.members(caller.region)])

    async def count_rows() -> int:
        return await fetch.count(index_of(request, state, caller), rows)

    return await consistency.read(request, caller, state.freshness, count_rows)


def index_of(request: AnyRequest, state: State, caller: Caller) -> Index:
    """Return the index for the searches of a request. Their time begins now.

    Raises:
        Problem: 503 while the read alias leads to an index of another installation.
    """
    state.index_owner.require_own()
    alias, ends_at = read_alias(state.settings.index_prefix), time.monotonic() + REQUEST_SECONDS
    is_confirmed = consistency.TOKEN in request.headers
    return Index(
        state.search, alias, routing(caller.environment_id), state.budget, caller, ends_at, is_confirmed=is_confirmed
    )


async def _answer(
    request: AnyRequest, state: State, caller: Caller, page_request: PageRequest, extra_members: ExtraMembers | None
) -> Answer:
    async def search_page() -> bytes:
        return await fetch.page(index_of(request, state, caller), state.first_pages, page_request, extra_members)

    content, headers = await consistency.read(request, caller, state.freshness, search_page)
    return Answer(200, content, headers)


def _conditions(caller: Caller, filter_text: str | None, audiences: Sequence[Audience] = ()) -> list[Clause]:
    """Return the clauses of the audiences and of the filter.

    Raises:
        Problem: 400 if they are too many for a query.
    """
    members = [audience.members(caller.region) for audience in audiences]
    sizes = {f"audience {audience.id}": audience.clauses(caller.region) for audience in audiences}
    if filter_text is None:
        expressions = []
    else:
        expressions = [language.parse(filter_text)]
        sizes["filter"] = clauses_of(*expressions)
    # The rules of a single audience, and a filter, were checked when they were written.
    if len(sizes) > 1 and sum(sizes.values()) > MAX_CLAUSES:
        parts = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        message = (
            f"The query is too long: the conditions have {sum(sizes.values())} clauses ({parts}), and at most "
            f"{MAX_CLAUSES} are allowed. Use fewer or shorter CONTAINS values, or one audience or filter at a time"
        )
        raise Problem(HTTPStatus.BAD_REQUEST, VALIDATION_FAILED, message=message)
    return [*members, *(clause(expression, caller.region) for expression in expressions)]


async def _audiences_of_rows(budget: Budget, caller: Caller, index: Index, hits: Sequence[Hit]) -> Iterator[bytes]:
    stored = {hit.id: hit.source.audience_ids for hit in hits}
    ids = sorted({audience_id for audience_ids in stored.values() for audience_id in audience_ids})
    audiences = await membership.of_rows(budget, caller, ids)
    return map(_audiences_member, await membership.references(index, caller, audiences, stored))


async def _matches_of_rows(
    parameters: SearchParameters, region: str | None, _: Index, hits: Sequence[Hit]
) -> Iterator[bytes]:
    return (_matches_member(hit, parameters, region) for hit in hits)


def _audiences_member(references: Sequence[AudienceReference]) -> bytes:
    return b',"audiences":' + msgspec.json.encode(references)


def _matches_member(hit: Hit, parameters: SearchParameters, region: str | None) -> bytes:
    """Return the JSON member `matchedOn`: the exact parameters, and the matches of `q`."""
    matches = [Match(field, "exact", text) for field, text in parameters.exact().items()]
    if parameters.q is not None:
        matches += explanations(parameters.q, region, hit.matched_queries)
    return b',"matchedOn":' + msgspec.json.encode(matches)
