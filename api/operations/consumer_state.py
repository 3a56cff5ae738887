"""How one consumer stands in the index, for those who look into why it is not found."""

from typing import Any

import msgspec
import sqlalchemy as sa
from litestar import Controller, Response, get
from litestar.datastructures import State

from api.answers import Answer
from api.auth import Caller
from api.errors import not_found
from api.operations.options import READ
from api.search import in_environment
from infra.ids import is_id

# What a deleted consumer has left is its change, for as long as that is on its way.
CONSUMER = sa.text("SELECT version FROM consumers WHERE environment_id = :environment_id AND id = :id")
CHANGE = sa.text("""
    SELECT max(version) AS version, max(attempts) AS attempts, bool_or(parked_at IS NOT NULL) AS is_parked,
        max(error) AS error
    FROM outbox WHERE environment_id = :environment_id AND consumer_id = :id HAVING count(*) > 0""")
GENERATIONS = sa.text("SELECT index_name, state FROM generations WHERE state <> 'dropped' ORDER BY id")


class Change(msgspec.Struct, rename="camel"):
    """The newest change that may not be searchable yet."""

    version: int
    attempts: int
    """Refusals of the document, of whichever change."""
    is_parked: bool
    error: str | None
    """Why it was refused last; it may quote the document."""


class Indexed(msgspec.Struct, rename="camel"):
    """What a generation holds of it."""

    index_name: str
    state: str
    version: int | None
    is_deleted: bool


class IndexState(msgspec.Struct, rename="camel"):
    database_version: int | None
    """Null if it is deleted."""
    is_searchable: bool
    """Whether readers find it as it is in the database."""
    change: Change | None
    generations: list[Indexed]


class _Source(msgspec.Struct):
    deleted: bool


class _Hit(msgspec.Struct, rename={"index": "_index", "version": "_version", "source": "_source"}):
    index: str
    version: int
    source: _Source


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Found(msgspec.Struct):
    hits: _Hits


class StateController(Controller):
    path = "/ops/consumers"
    tags = ("Operations",)

    @get(
        "/{consumer_id:str}/index-state",
        opt=READ,
        summary="How a consumer stands in the index",
    )
    async def index_state(self, consumer_id: str, caller: Caller, state: State) -> Response[IndexState]:
        if not is_id("cons_", consumer_id):
            raise not_found("Consumer")
        values = {"environment_id": caller.environment_id, "id": consumer_id}
        async with state.engine.connect() as connection:
            version = (await connection.execute(CONSUMER, values)).scalar_one_or_none()
            change = (await connection.execute(CHANGE, values)).one_or_none()
            generations = (await connection.execute(GENERATIONS)).all()
        held = await _held(state, caller, consumer_id, [row.index_name for row in generations])
        if version is None and change is None and not held:
            raise not_found("Consumer")
        indexed = [
            Indexed(row.index_name, row.state, hit.version if hit else None, hit is not None and hit.source.deleted)
            for row in generations
            for hit in [held.get(row.index_name)]
        ]
        live = next((each for each in indexed if each.state == "live"), None)
        searchable = change is None and live is not None and version is not None and live.version == version
        found = IndexState(version, searchable, Change(*change) if change else None, indexed)
        return Answer(200, msgspec.json.encode(found)).response()


async def _held(state: State, caller: Caller, consumer_id: str, names: list[str]) -> dict[str, _Hit]:
    """Its document in each index that has one, tombstones too, as it is searchable."""
    rows = {"bool": {"filter": [in_environment(caller.environment_id), {"ids": {"values": [consumer_id]}}]}}
    body = {"query": rows, "size": len(names), "version": True, "_source": ["deleted"]}
    params: dict[str, Any] = {"ignore_unavailable": "true", "allow_partial_search_results": "false"}
    answer: Any = await state.search.search(index=",".join(names), body=body, params=params)
    return {hit.index: hit for hit in msgspec.json.decode(answer, type=_Found).hits.hits}
