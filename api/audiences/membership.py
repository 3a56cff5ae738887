"""Membership: the audiences of a consumer, and the members of an audience, both from OpenSearch.

Stored members are a field of the documents. A dynamic audience is a query, compiled from the rules. Every endpoint uses
this query, so the members cannot differ between endpoints.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api import search
from api.audiences.rows import VISIBLE, decode_rules
from api.audiences.rules import clauses_of_rules, expression
from api.audiences.schemas import AudienceReference
from api.auth import Caller
from api.errors import not_found
from infra.database.rows import select_list
from infra.filters.clauses import Clause, clause
from infra.filters.conditions import MAX_CLAUSES
from infra.ids import is_id


class Audience(NamedTuple):
    """An audience with the columns needed for membership."""

    id: str
    name: str
    type: str
    rules: str | None
    """JSON text; None unless the audience is dynamic."""

    @property
    def reference(self) -> AudienceReference:
        return AudienceReference(self.id, self.name, self.type)  # type: ignore[arg-type]  # a constraint of the table

    def members(self, region: str | None) -> Clause:
        """Return the clause for the audience's members."""
        return search.in_audience(self.id) if self.rules is None else _compile(self.rules, region).clause


COLUMNS = select_list(Audience._fields, "a", rules="a.rules::text")
FIND = sa.text(f"SELECT {COLUMNS} FROM audiences a WHERE {VISIBLE} AND a.id = :id")
OF_ROWS = sa.text(f"SELECT {COLUMNS} FROM audiences a WHERE {VISIBLE} AND (a.type = 'DYNAMIC' OR a.id = ANY(:ids))")
OF_CONSUMER = sa.text(f"""
    SELECT {COLUMNS} FROM audiences a WHERE {VISIBLE} AND (a.type = 'DYNAMIC' OR a.id IN (
        SELECT m.audience_id FROM audience_members m
        WHERE m.environment_id = :environment_id AND m.consumer_id = :consumer_id))""")


async def find(engine: AsyncEngine, caller: Caller, audience_id: str) -> Audience:
    """Read an audience from PostgreSQL.

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
    """Return the audiences that a consumer may be in: those that store it as a member, and all dynamic ones."""
    values = {"environment_id": caller.environment_id, "consumer_id": consumer_id}
    return [Audience._make(row) for row in await connection.execute(OF_CONSUMER, values)]


async def of_rows(engine: AsyncEngine, caller: Caller, stored_ids: Sequence[str]) -> list[Audience]:
    """Return the audiences that the rows of a page may be in: those with `stored_ids`, and all dynamic ones."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        values = {"environment_id": caller.environment_id, "ids": stored_ids}
        return [Audience._make(row) for row in await connection.execute(OF_ROWS, values)]


async def references(
    index: search.Index, caller: Caller, audiences: Sequence[Audience], stored: Mapping[str, Sequence[str]]
) -> list[list[AudienceReference]]:
    """Return the audiences of each consumer, ordered by name and id. The index is searched once for all consumers.

    Args:
        index: to search.
        caller: the environment to read.
        audiences: that the consumers may be in.
        stored: consumer id → ids of the audiences with the consumer as a stored member.

    Raises:
        OpenSearchException: the index cannot answer.
    """
    clauses = list(_clause_groups(audiences, caller.region))
    dynamic = await search.satisfied(index, caller.environment_id, list(stored), clauses)
    ordered = sorted(audiences, key=lambda audience: (audience.name, audience.id))
    return [
        [audience.reference for audience in ordered if audience.id in {*audience_ids, *dynamic[consumer_id]}]
        for consumer_id, audience_ids in stored.items()
    ]


def _clause_groups(audiences: Sequence[Audience], region: str | None) -> Iterator[dict[str, Clause]]:
    """Yield the clauses of the dynamic audiences by audience id, in groups small enough for a query."""
    group: dict[str, Clause] = {}
    size = 0
    for audience in audiences:
        if audience.rules is None:
            continue
        compiled = _compile(audience.rules, region)
        if group and size + compiled.clauses > MAX_CLAUSES:
            yield group
            group, size = {}, 0
        group[audience.id] = compiled.clause
        size += compiled.clauses
    yield group


class _Compiled(NamedTuple):
    clause: Clause
    clauses: int
    """Upper bound for the number of clauses in the query (`conditions.MAX_CLAUSES`)."""


# Many requests need the same few audiences.
@lru_cache(maxsize=512)
def _compile(rules: str, region: str | None) -> _Compiled:
    """Compile the rules of a dynamic audience to a query."""
    decoded = decode_rules(rules)
    return _Compiled(clause(expression(decoded), region), clauses_of_rules(decoded))
