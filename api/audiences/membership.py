"""Who is in an audience, and in which audiences a consumer is: stored members and rules, both as the index has them.

A dynamic audience is its rules' query, here and everywhere; no second reading of them exists.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api import search
from api.audiences.rows import VISIBLE, decode_rules
from api.audiences.rules import clauses, expression
from api.audiences.schemas import AudienceReference
from api.auth import Caller
from api.errors import not_found
from infra.database.rows import select_list
from infra.filters.clauses import Clause, clause
from infra.filters.conditions import MOST_CLAUSES
from infra.ids import is_id


class Audience(NamedTuple):
    id: str
    name: str
    type: str
    rules: str | None
    """JSON text, of a dynamic one."""

    @property
    def reference(self) -> AudienceReference:
        return AudienceReference(self.id, self.name, self.type)  # type: ignore[arg-type]  # the table knows no others

    def members(self, region: str | None) -> Clause:
        """The query that finds them."""
        return search.in_audience(self.id) if self.rules is None else _compiled(self.rules, region).clause


COLUMNS = select_list(Audience._fields, "a", rules="a.rules::text")
FIND = sa.text(f"SELECT {COLUMNS} FROM audiences a WHERE {VISIBLE} AND a.id = :id")
OF_ROWS = sa.text(f"SELECT {COLUMNS} FROM audiences a WHERE {VISIBLE} AND (a.type = 'DYNAMIC' OR a.id = ANY(:ids))")
OF_CONSUMER = sa.text(f"""
    SELECT {COLUMNS} FROM audiences a WHERE {VISIBLE} AND (a.type = 'DYNAMIC' OR a.id IN (
        SELECT m.audience_id FROM audience_members m
        WHERE m.environment_id = :environment_id AND m.consumer_id = :consumer_id))""")


async def find(engine: AsyncEngine, caller: Caller, audience_id: str) -> Audience:
    """Look an audience up.

    Raises:
        Problem: 404.
    """
    if is_id("aud_", audience_id):
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            values = {"environment_id": caller.environment_id, "id": audience_id}
            if row := (await connection.execute(FIND, values)).one_or_none():
                return Audience._make(row)
    raise not_found("Audience")


async def of_consumer(connection: AsyncConnection, caller: Caller, consumer_id: str) -> list[Audience]:
    """The audiences of an environment that a consumer may be in: those it is stored in, and all dynamic ones."""
    values = {"environment_id": caller.environment_id, "consumer_id": consumer_id}
    return [Audience._make(row) for row in await connection.execute(OF_CONSUMER, values)]


async def of_rows(engine: AsyncEngine, caller: Caller, stored: Sequence[str]) -> list[Audience]:
    """Those of an environment that rows of a page may be in: the ones they are `stored` in, and all dynamic ones."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        values = {"environment_id": caller.environment_id, "ids": stored}
        return [Audience._make(row) for row in await connection.execute(OF_ROWS, values)]


async def references(
    index: search.Index, caller: Caller, audiences: Sequence[Audience], stored: Mapping[str, Sequence[str]]
) -> list[list[AudienceReference]]:
    """The audiences of each consumer, by name then id; of dynamic ones the index is asked, once for all consumers.

    Args:
        index: to ask.
        caller: whose environment it is.
        audiences: those there are to be in.
        stored: by consumer, the ids of those it is a stored member of.

    Raises:
        OpenSearchException: the index cannot answer.
    """
    parts = list(_parts(audiences, caller.region))
    found = await search.satisfied(index, caller.environment_id, list(stored), parts)
    known = sorted(audiences, key=lambda audience: (audience.name, audience.id))
    return [
        [audience.reference for audience in known if audience.id in {*ids, *found[consumer_id]}]
        for consumer_id, ids in stored.items()
    ]


def _parts(audiences: Sequence[Audience], region: str | None) -> Iterator[dict[str, Clause]]:
    """The rules' queries by audience, as many together as one query may hold."""
    part: dict[str, Clause] = {}
    size = 0
    for audience in audiences:
        if audience.rules is None:
            continue
        compiled = _compiled(audience.rules, region)
        if part and size + compiled.clauses > MOST_CLAUSES:
            yield part
            part, size = {}, 0
        part[audience.id] = compiled.clause
        size += compiled.clauses
    yield part


class _Compiled(NamedTuple):
    clause: Clause
    clauses: int
    """What it counts as (`conditions.MOST_CLAUSES`)."""


@lru_cache(maxsize=512)
def _compiled(rules: str, region: str | None) -> _Compiled:
    """The query of a dynamic audience: many requests ask for the same few."""
    found = decode_rules(rules)
    return _Compiled(clause(expression(found), region), clauses(found))
