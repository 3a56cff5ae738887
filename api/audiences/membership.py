"""Membership: the audiences of a consumer, and the members of an audience, both from OpenSearch.

Stored members are a field of the documents. A dynamic audience is a query, compiled from the rules. Every endpoint uses
this query, so the members cannot differ between endpoints.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api import search
from api.audiences.rows import VISIBLE
from api.audiences.schemas import AudienceReference
from api.auth import Caller
from api.budget import Budget
from api.errors import Fault, invalid, not_found
from infra.database.rows import select_list
from infra.filters.clauses import Clause, clause
from infra.filters.conditions import MAX_CLAUSES, clauses_of
from infra.filters.stored_rules import decode, expression
from infra.ids import is_id

MAX_INCLUDED_CLAUSES = 9_000
"""Clauses of all dynamic audiences in a request with `include=audiences`: ten full queries, about a second."""
LONG_RULES = 16_384
"""Characters of JSON from which rules are long: compiling can take 10 ms, and few compiled ones are kept in memory."""


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
        return search.in_audience(self.id) if self.rules is None else compile_rules(self.rules, region).clause

    def clauses(self, region: str | None) -> int:
        """Return the number of clauses in `members`, as counted for limits."""
        return 1 if self.rules is None else compile_rules(self.rules, region).clauses


COLUMNS = select_list(Audience._fields, "a", rules="a.rules::text")
FIND = sa.text(f"SELECT {COLUMNS} FROM audiences a WHERE {VISIBLE} AND a.id = :id")
OF_ROWS = sa.text(f"SELECT {COLUMNS} FROM audiences a WHERE {VISIBLE} AND (a.type = 'DYNAMIC' OR a.id = ANY(:ids))")
OF_CONSUMER = sa.text(f"""
    SELECT {COLUMNS} FROM audiences a WHERE {VISIBLE} AND (a.type = 'DYNAMIC' OR a.id IN (
        SELECT m.audience_id FROM audience_members m
        WHERE m.environment_id = :environment_id AND m.consumer_id = :consumer_id))""")


async def find(budget: Budget, caller: Caller, audience_id: str) -> Audience:
    """Read an audience from PostgreSQL.

    Raises:
        Problem: 404.
    """
    if is_id("aud_", audience_id):
        async with budget.connection(caller) as connection:
            values = {"environment_id": caller.environment_id, "id": audience_id}
            if row := (await connection.execute(FIND, values)).one_or_none():
                return Audience._make(row)
    raise not_found("Audience")


async def of_consumer(connection: AsyncConnection, caller: Caller, consumer_id: str) -> list[Audience]:
    """Return the audiences that a consumer may be in: those that store it as a member, and all dynamic ones."""
    values = {"environment_id": caller.environment_id, "consumer_id": consumer_id}
    return [Audience._make(row) for row in await connection.execute(OF_CONSUMER, values)]


async def of_rows(budget: Budget, caller: Caller, stored_ids: Sequence[str]) -> list[Audience]:
    """Return the audiences that the rows of a page may be in: those with `stored_ids`, and all dynamic ones."""
    async with budget.connection(caller) as connection:
        values = {"environment_id": caller.environment_id, "ids": stored_ids}
        return [Audience._make(row) for row in await connection.execute(OF_ROWS, values)]


async def references(
    index: search.Index, caller: Caller, audiences: Sequence[Audience], stored: Mapping[str, Sequence[str]]
) -> Iterator[list[AudienceReference]]:
    """Return the audiences of each consumer, ordered by name and id. A search asks for all consumers together.

    Args:
        index: to search.
        caller: the environment to read.
        audiences: that the consumers may be in.
        stored: consumer id → ids of the audiences with the consumer as a stored member.

    Raises:
        Problem: 400 if the dynamic audiences have too many clauses.
        OpenSearchException: the index cannot answer.
    """
    compiled = await _compile_all(audiences, caller.region)
    dynamic = await search.satisfied(index, caller.environment_id, list(stored), _clause_groups(compiled))
    ordered = sorted(audiences, key=lambda audience: (audience.name, audience.id))

    def of_consumer(consumer_id: str) -> list[AudienceReference]:
        ids = {*stored[consumer_id], *dynamic[consumer_id]}
        return [audience.reference for audience in ordered if audience.id in ids]

    return map(of_consumer, stored)


async def _compile_all(audiences: Sequence[Audience], region: str | None) -> dict[str, "Compiled"]:
    """Return the dynamic audiences by id, compiled.

    Raises:
        Problem: 400 if the audiences have too many clauses together.
    """
    compiled = {}
    for audience in audiences:
        if audience.rules is not None:
            compiled[audience.id] = compile_rules(audience.rules, region)
            if len(audience.rules) >= LONG_RULES:
                await asyncio.sleep(0)  # lets other requests have their turn
    clauses = sum(each.clauses for each in compiled.values())
    if clauses > MAX_INCLUDED_CLAUSES:
        raise invalid(
            Fault(
                "include",
                f"The dynamic audiences have {clauses} clauses together, and at most {MAX_INCLUDED_CLAUSES} are "
                "allowed: use fewer or shorter CONTAINS values in their rules, or delete audiences",
            )
        )
    return compiled


def _clause_groups(compiled: Mapping[str, "Compiled"]) -> Iterator[dict[str, Clause]]:
    """Yield the clauses of the dynamic audiences by audience id, in groups small enough for a query."""
    group: dict[str, Clause] = {}
    size = 0
    for audience_id, each in compiled.items():
        if group and size + each.clauses > MAX_CLAUSES:
            yield group
            group, size = {}, 0
        group[audience_id] = each.clause
        size += each.clauses
    yield group


class Compiled(NamedTuple):
    """The rules of a dynamic audience as a query."""

    clause: Clause
    clauses: int
    """The number of clauses in the query, as counted for limits (`conditions.MAX_CLAUSES`)."""


def compile_rules(rules: str, region: str | None) -> Compiled:
    """Compile the rules of a dynamic audience to a query."""
    return (_compile_long if len(rules) >= LONG_RULES else _compile_short)(rules, region)


def _compile(rules: str, region: str | None) -> Compiled:
    whole = expression(decode(rules))
    return Compiled(clause(whole, region), clauses_of(whole))


# Many requests need the same few audiences.
_compile_short, _compile_long = lru_cache(maxsize=512)(_compile), lru_cache(maxsize=32)(_compile)
