"""Ask live questions: check, search with the filter of the environment, and convert the answer (contract.md §6)."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa
from litestar.datastructures import State

from api import consistency
from api.analytics import answers, bodies, points
from api.analytics.bodies import DEFAULT_FORM, Form, Search
from api.analytics.connections import while_connected
from api.analytics.fields import Refused
from api.answers import Answer
from api.auth import Caller
from api.error_codes import ErrorCode
from api.errors import RETRY_AFTER_SECONDS, Fault, Problem, invalid
from api.request import AnyRequest
from api.search import Index, ask, in_environment
from infra.exports.attributes import Attribute
from infra.filters.clauses import Clause
from infra.index.naming import read_alias, routing

SECONDS = 10.0
NEEDED = ("attributes", "emailDomain", "phoneCountry")
"""Fields missing in an index of an earlier release."""
DECLARED = sa.text("""
    SELECT o.attributes,
        coalesce((SELECT fields @> CAST(:fields AS text[]) FROM generations WHERE state = 'live'), false)
    FROM environments e JOIN organizations o ON o.id = e.organization_id WHERE e.id = :environment_id""")
Result = TypeVar("Result")


class Asked(NamedTuple):
    """The request of a live question."""

    request: AnyRequest
    state: State
    caller: Caller

    def open_index(self) -> Index:
        """Return the index to search.

        Raises:
            Problem: 503 while the read alias leads to an index of another installation.
        """
        self.state.index_owner.require_own()
        return Index(
            self.state.search,
            read_alias(self.state.settings.index_prefix),
            routing(self.caller.environment_id),
            self.state.budget,
            self.caller,
            asyncio.get_running_loop().time() + SECONDS,
        )

    async def attributes(self) -> list[Attribute]:
        """Return the declared attributes of the organization.

        Raises:
            Problem: 503 if the index was made by an earlier release.
        """
        values = {"environment_id": self.caller.environment_id, "fields": list(NEEDED)}
        async with self.state.budget.connection(self.caller) as connection:
            stored, is_complete = (await connection.execute(DECLARED, values)).one()
        if not is_complete:
            raise _outdated()
        return msgspec.convert(stored, list[Attribute])


async def search(asked: Asked, body: dict[str, Any], form: Form = DEFAULT_FORM) -> Answer:
    """Answer a search.

    Raises:
        Problem: 400 for a member outside the list; 404 for an ended point in time; 429 while another question of the
            environment runs; 504 if the answer takes too long.
        OpenSearchException: the index cannot answer.
    """
    attributes = await asked.attributes()
    question = _checked(lambda: bodies.search(body, attributes, asked.caller.region))._replace(form=form)
    pit = _pit(asked.caller, question)
    content = question.options | {"query": _within(asked.caller, question.query)}
    if pit is not None:
        content["pit"] = {"id": pit, "keep_alive": points.KEEP_ALIVE}
    response, headers = await _answered(asked, content, pit)
    if pit is not None:
        asked.state.points.renew(asked.caller, pit)
    return Answer(HTTPStatus.OK, await asked.state.turns.run(answers.answer(response, question)), headers)


async def count(asked: Asked, body: dict[str, Any]) -> Answer:
    """Answer a count.

    Raises:
        Problem, OpenSearchException: as `search`.
    """
    attributes = await asked.attributes()
    query = _checked(lambda: bodies.count(body, attributes, asked.caller.region))
    content = {"query": _within(asked.caller, query), "size": 0, "track_total_hits": True}
    response, headers = await _answered(asked, content)
    found = msgspec.json.decode(response)["hits"]["total"]["value"]
    return Answer(HTTPStatus.OK, answers.encode({"count": found, "_shards": answers.SHARDS}), headers)


async def _answered(asked: Asked, content: Clause, pit: str | None = None) -> tuple[Any, dict[str, str]]:
    """Ask the index; return the response and the headers. The question ends with the connection of the client."""

    async def run() -> Any:
        async with asked.state.places.hold(asked.caller):
            return await ask(asked.open_index(), content, seconds=SECONDS, pit=pit)

    reading = consistency.read(asked.request, asked.caller, asked.state.freshness, run)
    return await while_connected(asked.request, reading)


def _checked(check: Callable[[], Result]) -> Result:
    try:
        return check()
    except Refused as refused:
        raise invalid(Fault(refused.path, str(refused), ErrorCode.NOT_ALLOWED_HERE)) from None


def _within(caller: Caller, query: Clause) -> Clause:
    """Return a query for consumers of the environment alone. No aggregation in the list leaves its query."""
    return {"bool": {"filter": [in_environment(caller.environment_id), query]}}


def _pit(caller: Caller, question: Search) -> str | None:
    if question.pit is None:
        return None
    pit = points.opened(caller.seal, question.pit)
    if pit is None:
        raise invalid(Fault("pit.id", "Not a point in time of this environment", ErrorCode.NOT_ALLOWED_HERE))
    return pit


def _outdated() -> Problem:
    message = "The index was made by an earlier release, and is being made anew, or the operator has to rebuild it"
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Search unavailable",
        code=ErrorCode.SEARCH_UNAVAILABLE,
        message=message,
        headers={"Retry-After": str(60 * RETRY_AFTER_SECONDS)},
    )
