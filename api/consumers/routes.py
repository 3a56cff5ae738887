"""The consumers' endpoints (contract.md §2)."""

from typing import Any

import msgspec
from litestar import Controller, MediaType, Request, Response, get, post
from litestar.datastructures import State

from api.auth import Caller
from api.consumers import query, reads, writes
from api.consumers.reads import ConsumerPage
from api.consumers.schemas import ListParameters, NewConsumer, SearchParameters
from api.transactions import Transactions
from api.validation import JSONBody, parameters
from infra.documents import Consumer, ConsumerRow, consumer_json, read_alias


class ConsumerController(Controller):
    path = "/consumers"
    tags = ("Consumers",)
    opt = {"scope": "read:consumers"}  # noqa: RUF012 (Litestar's way; also what OPTIONS asks for)

    @post("/", dto=JSONBody, return_dto=None, opt={"scope": "write:consumers"}, summary="Create a consumer")
    async def create(
        self, request: Request[Any, Any, Any], data: NewConsumer, caller: Caller, transactions: Transactions
    ) -> Response[Consumer]:
        row = await transactions.run(request, lambda connection: writes.create(connection, caller, data))
        return _consumer(row, status_code=201)

    @get("/{consumer_id:str}", summary="Get a consumer")
    async def fetch(self, consumer_id: str, caller: Caller, state: State) -> Response[Consumer]:
        async with state.engine.connect() as connection:
            return _consumer(await writes.get(connection, caller, consumer_id))

    @get("/", summary="List consumers")
    async def page(self, request: Request[Any, Any, Any], caller: Caller, state: State) -> Response[ConsumerPage]:
        asked = parameters(request, ListParameters, caller)
        rows = query.list_query(
            caller.environment_id,
            search=asked.search,
            region=caller.region,
            created_after=asked.created_after,
            created_before=asked.created_before,
        )
        order = query.list_order(caller.environment_id, asked.sort_by, asked.sort_dir)
        question = ["list", caller.environment_id, asked.question()]
        return await _page(state, rows, order, asked.window(), question)

    @get("/search", summary="Search consumers, best match first")
    async def search(self, request: Request[Any, Any, Any], caller: Caller, state: State) -> Response[ConsumerPage]:
        asked = parameters(request, SearchParameters, caller)
        rows = query.search_query(caller.environment_id, asked.q, caller.region)
        question = ["search", caller.environment_id, asked.question()]
        return await _page(state, rows, query.search_order(), asked.window(), question)


async def _page(
    state: State, rows: query.Clause, order: query.Order, window: reads.Window, question: list[Any]
) -> Response[ConsumerPage]:
    alias = read_alias(state.settings.index_prefix)
    content = await reads.page(state.search, alias, rows, order, window, msgspec.json.encode(question))
    return _json(content)


def _consumer(row: ConsumerRow, status_code: int = 200) -> Response[Consumer]:
    return _json(consumer_json(row), status_code)


def _json(content: Any, status_code: int = 200) -> Response[Any]:
    """An answer that is JSON already."""
    return Response(content, status_code=status_code, media_type=MediaType.JSON)
