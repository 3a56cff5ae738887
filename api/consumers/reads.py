"""Pages of the list, a search, and an audience's members: what is asked of the index, and of PostgreSQL for it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State

from api import consistency
from api.answers import Answer
from api.audiences import membership
from api.audiences.membership import Audience
from api.audiences.schemas import AudienceReference
from api.auth import Caller
from api.consumers import fetch, query
from api.consumers.fetch import Asked, Hit
from api.consumers.matching import Match, explained
from api.consumers.schemas import ListParameters, SearchParameters
from api.search import Index
from infra.filters import language
from infra.filters.clauses import Clause, clause
from infra.index.naming import read_alias

AnyRequest = Request[Any, Any, Any]


async def page(
    request: AnyRequest, state: State, caller: Caller, asked: ListParameters, members_of: Audience | None = None
) -> Answer:
    """A page of the list; of an audience's members alone, if one is given.

    Raises:
        Problem: 404 for an unknown `audienceId`; 400 for a cursor; 503 for a token that is not reached, if strict.
        OpenSearchException: the index cannot answer.
    """
    audiences = [members_of] if members_of else []
    if asked.audience_id is not None:
        audiences.append(await membership.find(state.engine, caller, asked.audience_id))
    rows = query.list_query(
        caller.environment_id,
        search=asked.search,
        region=caller.region,
        created_after=asked.created_after,
        created_before=asked.created_before,
        conditions=[*(audience.members(caller.region) for audience in audiences), *_filter(asked.filter, caller)],
    )
    question = ["list", caller.environment_id, asked.question(), *([members_of.id] if members_of else [])]
    order = query.list_order(caller.environment_id, asked.sort_by, asked.sort_dir)
    wanted = Asked(rows, order, asked.window(), msgspec.json.encode(question), counted=asked.count)
    more = partial(_audiences, state, caller) if asked.include else None
    return await _answer(request, state, caller, wanted, more)


async def search(request: AnyRequest, state: State, caller: Caller, asked: SearchParameters) -> Answer:
    """A page of a search.

    Raises:
        Problem, OpenSearchException: as `page`.
    """
    rows = query.search_query(
        caller.environment_id,
        asked.q,
        asked.exact(),
        region=caller.region,
        conditions=_filter(asked.filter, caller),
        explain=asked.explain,
    )
    question = msgspec.json.encode(["search", caller.environment_id, asked.question()])
    wanted = Asked(rows, query.search_order(), asked.window(), question)
    return await _answer(
        request, state, caller, wanted, partial(_matches, asked, caller.region) if asked.explain else None
    )


async def audiences(
    request: AnyRequest, state: State, caller: Caller, consumer_id: str, possible: Sequence[Audience]
) -> tuple[bytes, dict[str, str]]:
    """The audiences of one consumer, of those it may be in, and how current that is."""
    stored = {consumer_id: [audience.id for audience in possible if audience.rules is None]}
    search = partial(membership.references, index_of(state), caller, possible, stored)
    [references], headers = await consistency.read(request, caller, state.freshness, search)
    return _audiences_member(references), headers


async def count(request: AnyRequest, state: State, caller: Caller, audience: Audience) -> tuple[int, dict[str, str]]:
    """How many members an audience has, and how current that is."""
    rows = query.list_query(caller.environment_id, conditions=[audience.members(caller.region)])
    return await consistency.read(request, caller, state.freshness, partial(fetch.count, index_of(state), rows))


def index_of(state: State) -> Index:
    return Index(state.search, read_alias(state.settings.index_prefix))


async def _answer(
    request: AnyRequest, state: State, caller: Caller, wanted: Asked, more: fetch.Members | None
) -> Answer:
    search = partial(fetch.page, index_of(state), state.oldest, wanted, more)
    content, headers = await consistency.read(request, caller, state.freshness, search)
    return Answer(200, content, headers)


def _filter(text: str | None, caller: Caller) -> list[Clause]:
    return [] if text is None else [clause(language.parse(text), caller.region)]


async def _audiences(state: State, caller: Caller, hits: Sequence[Hit]) -> list[bytes]:
    stored = {hit.id: hit.source.audience_ids for hit in hits}
    audiences = await membership.of_rows(
        state.engine, caller, sorted({each for ids in stored.values() for each in ids})
    )
    references = await membership.references(index_of(state), caller, audiences, stored)
    return [_audiences_member(each) for each in references]


async def _matches(asked: SearchParameters, region: str | None, hits: Sequence[Hit]) -> list[bytes]:
    return [_matches_member(hit, asked, region) for hit in hits]


def _audiences_member(references: Sequence[AudienceReference]) -> bytes:
    return b',"audiences":' + msgspec.json.encode(references)


def _matches_member(hit: Hit, asked: SearchParameters, region: str | None) -> bytes:
    """How a row was found: by the fields that were asked for one by one, which are exact, and by `q`."""
    found = [Match(field, "exact", text) for field, text in asked.exact().items()]
    if asked.q is not None:
        found += explained(asked.q, region, hit.matched_queries)
    return b',"matchedOn":' + msgspec.json.encode(found)
