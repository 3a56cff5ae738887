"""The read path of each endpoint: the list, a search, an audience's members and their number, a consumer's audiences.

Combines the query (`query`), the page from OpenSearch (`fetch`), the audiences from PostgreSQL (`membership`) and the
wait for a consistency token (`api.consistency`).
"""

from collections.abc import Sequence
from functools import partial

import msgspec
from litestar.datastructures import State

from api import consistency
from api.answers import Answer
from api.audiences import membership
from api.audiences.membership import Audience
from api.audiences.schemas import AudienceReference
from api.auth import Caller
from api.consumers import fetch, query
from api.consumers.fetch import ExtraMembers, Hit, PageRequest
from api.consumers.matching import Match, explanations
from api.consumers.schemas import ListParameters, SearchParameters
from api.cursors import Cursors
from api.request import AnyRequest
from api.search import Index
from infra.filters import language
from infra.filters.clauses import Clause, clause
from infra.index.naming import read_alias


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
        audiences.append(await membership.find(state.engine, caller, parameters.audience_id))
    members = [audience.members(caller.region) for audience in audiences]
    rows = query.list_query(
        caller.environment_id,
        search=parameters.search,
        region=caller.region,
        created_after=parameters.created_after,
        created_before=parameters.created_before,
        conditions=[*members, *_filter(parameters.filter, caller)],
    )
    identity = ["list", caller.environment_id, parameters.list_parameters(), *([members_of.id] if members_of else [])]
    page_request = PageRequest(
        rows,
        query.list_order(caller.environment_id, parameters.sort_by, parameters.sort_dir),
        parameters.paging(),
        Cursors(caller.seal, msgspec.json.encode(identity)),
        with_total=parameters.count,
    )
    extra_members = partial(_audiences_of_rows, state, caller) if parameters.include else None
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
        conditions=_filter(parameters.filter, caller),
        explain=parameters.explain,
    )
    list_id = msgspec.json.encode(["search", caller.environment_id, parameters.list_parameters()])
    page_request = PageRequest(rows, query.search_order(), parameters.paging(), Cursors(caller.seal, list_id))
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
    search = partial(membership.references, index_of(state), caller, possible, stored)
    [references], headers = await consistency.read(request, caller, state.freshness, search)
    return _audiences_member(references), headers


async def count(request: AnyRequest, state: State, caller: Caller, audience: Audience) -> tuple[int, dict[str, str]]:
    """Count the members of an audience; also return headers about freshness."""
    rows = query.list_query(caller.environment_id, conditions=[audience.members(caller.region)])
    return await consistency.read(request, caller, state.freshness, partial(fetch.count, index_of(state), rows))


def index_of(state: State) -> Index:
    return Index(state.search, read_alias(state.settings.index_prefix))


async def _answer(
    request: AnyRequest, state: State, caller: Caller, page_request: PageRequest, extra_members: ExtraMembers | None
) -> Answer:
    search = partial(fetch.page, index_of(state), state.first_pages, page_request, extra_members)
    content, headers = await consistency.read(request, caller, state.freshness, search)
    return Answer(200, content, headers)


def _filter(text: str | None, caller: Caller) -> list[Clause]:
    return [] if text is None else [clause(language.parse(text), caller.region)]


async def _audiences_of_rows(state: State, caller: Caller, hits: Sequence[Hit]) -> list[bytes]:
    stored = {hit.id: hit.source.audience_ids for hit in hits}
    ids = sorted({audience_id for audience_ids in stored.values() for audience_id in audience_ids})
    audiences = await membership.of_rows(state.engine, caller, ids)
    references = await membership.references(index_of(state), caller, audiences, stored)
    return [_audiences_member(of_row) for of_row in references]


async def _matches_of_rows(parameters: SearchParameters, region: str | None, hits: Sequence[Hit]) -> list[bytes]:
    return [_matches_member(hit, parameters, region) for hit in hits]


def _audiences_member(references: Sequence[AudienceReference]) -> bytes:
    return b',"audiences":' + msgspec.json.encode(references)


def _matches_member(hit: Hit, parameters: SearchParameters, region: str | None) -> bytes:
    """Return the JSON member `matchedOn`: the exact parameters, and the matches of `q`."""
    matches = [Match(field, "exact", text) for field, text in parameters.exact().items()]
    if parameters.q is not None:
        matches += explanations(parameters.q, region, hit.matched_queries)
    return b',"matchedOn":' + msgspec.json.encode(matches)
