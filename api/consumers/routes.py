"""The consumers' endpoints (contract.md §2)."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from sqlalchemy.ext.asyncio import AsyncConnection

from api import batch_results, consistency
from api.answers import Answer, array, entity_tags, etag, etags, is_none_match, location, weak_etag
from api.audiences import membership
from api.auth import Caller
from api.batch_results import Outcome
from api.consumers import batches, lookups, reads, writes
from api.consumers.results import ConsumerResults
from api.consumers.schemas import (
    BatchUpsertParameters,
    ConsumerCreate,
    ConsumerUpdate,
    ConsumerUpdateItem,
    GetParameters,
    ListParameters,
    LookupParameters,
    SearchParameters,
    UpsertParameters,
)
from api.consumers.shown import ConsumerIncluding, ConsumerPage, SearchPage
from api.drafts import BatchDraft, BatchParameters, ObjectDraft
from api.orders.writes import newest
from api.request import AnyRequest
from api.route_options import route_options
from api.transactions import Transaction
from infra.index.documents import Consumer, ConsumerRow, consumer_json, without_data

READ = route_options("read:consumers", "reads", from_index=True)
LOOKUP = route_options("read:consumers", "reads")
WRITE = route_options("write:consumers", "writes")
WRITE_BATCH = route_options("write:consumers", "batch", batch_key="consumers")
NEWEST_ORDERS = 50
OUTCOMES: dict[int, ResponseSpec] = {HTTPStatus.MULTI_STATUS: ResponseSpec(ConsumerResults, generate_examples=False)}


class ConsumerController(Controller):
    path = "/consumers"
    tags = ("Consumers",)

    @post("/", opt=WRITE, summary="Create a consumer")
    async def create(
        self, payload: ObjectDraft[ConsumerCreate], caller: Caller, transaction: Transaction
    ) -> Response[Consumer]:
        return await transaction.run(
            writes.create, caller, payload, render=partial(_created, caller), explain=writes.explain_conflict
        )

    @post("/batch", opt=WRITE_BATCH, summary="Create up to 500 consumers", responses=OUTCOMES)
    async def create_batch(
        self,
        request: AnyRequest,
        payload: BatchDraft[ConsumerCreate],
        parameters: BatchParameters,
        caller: Caller,
        transaction: Transaction,
        state: State,
    ) -> Response[list[Consumer]]:
        if parameters.on_error == "continue":
            return await transaction.run(
                batches.create, caller, payload, state.turns, render=_outcomes(request, HTTPStatus.MULTI_STATUS)
            )
        return await transaction.run(
            writes.create, caller, payload, render=_created_batch, explain=writes.explain_conflict
        )

    @put("/batch", opt=WRITE_BATCH, summary="Change up to 500 consumers", responses=OUTCOMES)
    async def update_batch(
        self,
        request: AnyRequest,
        payload: BatchDraft[ConsumerUpdateItem],
        parameters: BatchParameters,
        caller: Caller,
        transaction: Transaction,
        state: State,
    ) -> Response[list[Consumer]]:
        if parameters.on_error == "continue":
            return await transaction.run(
                batches.update, caller, payload, state.turns, render=_outcomes(request, HTTPStatus.MULTI_STATUS)
            )
        return await transaction.run(writes.update_batch, caller, payload, state.turns, render=_changed_batch)

    @post(
        "/upsert",
        opt=WRITE,
        summary="Change the consumer with a value, or create the consumer",
        responses={HTTPStatus.OK: ResponseSpec(Consumer, generate_examples=False)},
    )
    async def upsert(
        self,
        payload: ObjectDraft[ConsumerUpdate],
        parameters: UpsertParameters,
        caller: Caller,
        transaction: Transaction,
        state: State,
    ) -> Response[Consumer]:
        by = parameters.match_by or "externalId"
        work = partial(batches.upsert, go_on=False)
        return await transaction.run(work, caller, payload, by, state.turns, render=partial(_upserted, caller))

    @post(
        "/batch/upsert",
        opt=WRITE_BATCH,
        status_code=HTTPStatus.OK,
        summary="Change or create up to 500 consumers, each by a value",
        responses=OUTCOMES,
    )
    async def upsert_batch(
        self,
        request: AnyRequest,
        payload: BatchDraft[ConsumerUpdate],
        parameters: BatchUpsertParameters,
        caller: Caller,
        transaction: Transaction,
        state: State,
    ) -> Response[ConsumerResults]:
        by, go_on = parameters.match_by or "externalId", parameters.on_error == "continue"
        work = partial(batches.upsert, go_on=go_on)
        render = _outcomes(request, HTTPStatus.MULTI_STATUS if go_on else HTTPStatus.OK)
        return await transaction.run(work, caller, payload, by, state.turns, render=render)

    @put("/{consumer_id:str}", opt=WRITE, summary="Change a consumer")
    async def update(
        self,
        request: AnyRequest,
        consumer_id: str,
        payload: ObjectDraft[ConsumerUpdate],
        caller: Caller,
        transaction: Transaction,
        state: State,
    ) -> Response[Consumer]:
        if_match = entity_tags(request, "if-match")
        return await transaction.run(
            writes.update, caller, consumer_id, payload, if_match, state.turns, render=partial(_changed, caller)
        )

    @delete(
        "/{consumer_id:str}",
        opt=WRITE,
        status_code=200,
        summary="Delete a consumer, its orders and memberships",
        description="With an `Idempotency-Key`, a retry gets the same status and the id of the deleted consumer. The "
        "other fields are null or 0 then, because no data of the consumer are kept.",
    )
    async def remove(
        self, request: AnyRequest, consumer_id: str, caller: Caller, transaction: Transaction
    ) -> Response[Consumer]:
        if_match = entity_tags(request, "if-match")
        return await transaction.run(writes.delete, caller, consumer_id, if_match, render=_deleted)

    @get("/{consumer_id:str}", opt=READ, summary="Get a consumer, always current")
    async def fetch(
        self, request: AnyRequest, consumer_id: str, parameters: GetParameters, caller: Caller, state: State
    ) -> Response[ConsumerIncluding]:
        include = parameters.include
        consistency.requested_writes(request, caller)
        async with state.budget.connection(caller) as connection:
            if include:  # the consumer and the included objects must be of the same moment
                await connection.execution_options(isolation_level="REPEATABLE READ")
            row = await writes.get(connection, caller, consumer_id)
            possible = await membership.of_consumer(connection, caller, consumer_id) if "audiences" in include else []
            orders = await _orders_member(connection, caller, consumer_id) if "orders" in include else b""
        audiences, headers = b"", dict[str, str]()
        if "audiences" in include:
            # The index decides about dynamic audiences; the connection is released during the search.
            audiences, headers = await reads.audiences(request, state, caller, consumer_id, possible)
        body = consumer_json(row)[:-1] + audiences + orders + b"}"
        current = [weak_etag(body)] if include else etags(caller.seal, row.id, row.version)
        return _shown(request, body, current, headers).response()

    @get("/lookup", opt=LOOKUP, summary="Get the consumer with an external id or e-mail address, always current")
    async def lookup(
        self, request: AnyRequest, parameters: LookupParameters, caller: Caller, state: State
    ) -> Response[Consumer]:
        async with state.budget.connection(caller) as connection:
            row = await lookups.find(connection, caller, parameters)
        return _shown(request, consumer_json(row), etags(caller.seal, row.id, row.version), {}).response()

    @get("/", opt=READ, summary="List consumers")
    async def page(
        self, request: AnyRequest, parameters: ListParameters, caller: Caller, state: State
    ) -> Response[ConsumerPage]:
        return (await reads.page(request, state, caller, parameters)).response()

    @get("/search", opt=READ, summary="Search consumers, best match first")
    async def search(
        self, request: AnyRequest, parameters: SearchParameters, caller: Caller, state: State
    ) -> Response[SearchPage]:
        return (await reads.search(request, state, caller, parameters)).response()


def _shown(request: AnyRequest, body: bytes, current: list[str], headers: dict[str, str]) -> Answer:
    """Answer with a consumer or, if the client has the current entity tag, with 304."""
    headers = headers | {"ETag": current[0]}
    if is_none_match(entity_tags(request, "if-none-match"), current):
        return Answer(HTTPStatus.NOT_MODIFIED, b"", headers)
    return Answer(HTTPStatus.OK, body, headers)


def _outcomes(request: AnyRequest, status: HTTPStatus) -> Callable[[list[Outcome]], Answer]:
    minimal = consistency.preferences_of(request).minimal

    def render(outcomes: list[Outcome]) -> Answer:
        ids = [outcome.id for outcome in outcomes if outcome.id]
        return batch_results.answer(outcomes, "consumer", status=status, minimal=minimal, consumer_ids=ids)

    return render


def _upserted(caller: Caller, outcomes: list[Outcome]) -> Answer:
    [outcome] = outcomes
    assert outcome.id, "a fault is a 400"
    headers = {"ETag": etag(caller.seal, outcome.id, outcome.version)}
    if outcome.status == "created":
        headers |= location("consumers", outcome.id)
        return Answer(HTTPStatus.CREATED, outcome.body, headers, consumer_ids=[outcome.id])
    return Answer(HTTPStatus.OK, outcome.body, headers, consumer_ids=[outcome.id])


def _created(caller: Caller, rows: list[ConsumerRow]) -> Answer:
    [row] = rows
    headers = {"ETag": etag(caller.seal, row.id, row.version)} | location("consumers", row.id)
    return Answer(HTTPStatus.CREATED, consumer_json(row), headers, consumer_ids=[row.id])


def _created_batch(rows: list[ConsumerRow]) -> Answer:
    bodies, ids = [consumer_json(row) for row in rows], [row.id for row in rows]
    return Answer(HTTPStatus.CREATED, array(bodies), consumer_ids=ids)


def _changed(caller: Caller, row: ConsumerRow) -> Answer:
    headers = {"ETag": etag(caller.seal, row.id, row.version)}
    return Answer(HTTPStatus.OK, consumer_json(row), headers, consumer_ids=[row.id])


def _changed_batch(rows: list[ConsumerRow]) -> Answer:
    return Answer(HTTPStatus.OK, array([consumer_json(row) for row in rows]), consumer_ids=[row.id for row in rows])


def _deleted(row: ConsumerRow) -> Answer:
    return Answer(HTTPStatus.OK, consumer_json(row), stored_body=consumer_json(without_data(row)))


async def _orders_member(connection: AsyncConnection, caller: Caller, consumer_id: str) -> bytes:
    return b',"orders":' + msgspec.json.encode(await newest(connection, caller, consumer_id, NEWEST_ORDERS))
