"""The route for the state of a consumer in the index, to find out why a search does not return the consumer.

Operators name the consumer by the id alone: ids are unique over all environments.
"""

from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa
from litestar import Controller, Response, get
from litestar.datastructures import State

from api.answers import Answer
from api.errors import not_found
from api.operations.options import READ
from api.search import in_environment
from infra.ids import is_id
from infra.index.client import OpenSearchError
from infra.index.hits import SearchResponse, SourceHit
from infra.index.naming import routing

CONSUMER = sa.text("SELECT environment_id, version FROM consumers WHERE id = :id")
# After a delete the outbox row is the only trace of the consumer in the database, until the drain removes the row.
CHANGE = sa.text("""
    SELECT max(environment_id) AS environment_id, max(version) AS version, max(attempts) AS attempts,
        bool_or(parked_at IS NOT NULL) AS is_parked, max(error) AS error
    FROM outbox WHERE consumer_id = :id HAVING count(*) > 0""")
GENERATIONS = sa.text("SELECT index_name, state FROM generations WHERE state <> 'dropped' ORDER BY id")


class Change(msgspec.Struct, rename="camel"):
    """The newest change in the outbox: it may not be searchable yet."""

    version: int
    """The version of the consumer after the change."""
    attempts: int
    """Refusals of the document: the highest count of the changes in the outbox."""
    is_parked: bool
    """Whether the change is set aside after too many refusals."""
    error: str | None
    """The last refusal. May quote the document."""


class Indexed(msgspec.Struct, rename="camel"):
    """The document of the consumer in a generation."""

    index_name: str
    """The index of the generation."""
    state: str
    """The state of the generation."""
    version: int | None
    """The version of the consumer in the document; null without a document, or while OpenSearch does not answer."""
    is_deleted: bool
    """Whether the document says that the consumer is deleted."""


class ConsumerIndexState(msgspec.Struct, rename="camel"):
    """The state of a consumer in the database and in each generation of the index."""

    database_version: int | None
    """Null if the consumer is deleted."""
    search: str
    """`ok`, or `unavailable` while OpenSearch does not answer: the state is then that of the database alone."""
    is_searchable: bool | None
    """Whether searches see the consumer as stored in the database; null while OpenSearch does not answer."""
    change: Change | None
    generations: list[Indexed]
    """The document of the consumer in each generation."""

    example: ClassVar[dict[str, Any]] = {
        "databaseVersion": 1048577,
        "search": "ok",
        "isSearchable": True,
        "change": None,
        "generations": [
            {"indexName": "consumers-000001", "state": "live", "version": 1048577, "isDeleted": False},
        ],
    }


class _Source(msgspec.Struct):
    deleted: bool


class _Hit(SourceHit[_Source], kw_only=True):
    index: str = msgspec.field(name="_index")


_decode = msgspec.json.Decoder(SearchResponse[_Hit]).decode


class StateController(Controller):
    path = "/ops/consumers"
    tags = ("Operations",)

    @get("/{consumer_id:str}/index-state", opt=READ, summary="Show the state of a consumer in the index")
    async def index_state(self, consumer_id: str, state: State) -> Response[ConsumerIndexState]:
        if not is_id("cons_", consumer_id):
            raise not_found("Consumer")
        async with state.engine.connect() as connection:
            consumer = (await connection.execute(CONSUMER, {"id": consumer_id})).one_or_none()
            change = (await connection.execute(CHANGE, {"id": consumer_id})).one_or_none()
            generations = (await connection.execute(GENERATIONS)).all()
        stored = consumer or change
        environment_id = stored.environment_id if stored else None
        try:
            hits = await _hits_by_index(state, environment_id, consumer_id, [row.index_name for row in generations])
        except OpenSearchError:
            # Without the index, an unknown consumer cannot be told from a deleted one.
            if stored is None:
                raise
            hits = None
        if stored is None and not hits:
            raise not_found("Consumer")
        version = consumer.version if consumer else None
        indexed = [
            Indexed(row.index_name, row.state, hit.version if hit else None, hit is not None and hit.source.deleted)
            for row in generations
            for hit in [(hits or {}).get(row.index_name)]
        ]
        live = next((generation for generation in indexed if generation.state == "live"), None)
        is_searchable = change is None and live is not None and version is not None and live.version == version
        waiting = Change(change.version, change.attempts, change.is_parked, change.error) if change else None
        if hits is None:
            answer = ConsumerIndexState(version, "unavailable", None, waiting, indexed)
        else:
            answer = ConsumerIndexState(version, "ok", is_searchable, waiting, indexed)
        return Answer(200, msgspec.json.encode(answer)).response()


async def _hits_by_index(
    state: State, environment_id: int | None, consumer_id: str, index_names: list[str]
) -> dict[str, _Hit]:
    """Return the consumer's searchable document by index, tombstones included.

    A document is searchable only in its own environment. A deleted consumer's environment is unknown.
    """
    filters: list[Any] = [{"ids": {"values": [consumer_id]}}]
    params: dict[str, Any] = {"ignore_unavailable": "true", "allow_partial_search_results": "false"}
    if environment_id is not None:
        filters.append(in_environment(environment_id))
        params["routing"] = routing(environment_id)
    query = {"bool": {"filter": filters}}
    body = {"query": query, "size": len(index_names), "version": True, "_source": ["deleted"]}
    response: Any = await state.search.search(index=",".join(index_names), body=body, params=params)
    return {hit.index: hit for hit in _decode(response).hits.hits}
