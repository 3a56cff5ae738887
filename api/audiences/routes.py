"""The audiences' endpoints (contract.md §4)."""

from typing import Any

import msgspec
from litestar import Controller, Request, Response, delete, get, post, put
from litestar.datastructures import State
from sqlalchemy.ext.asyncio import AsyncConnection

from api.answers import Answer
from api.audiences import lists, writes
from api.audiences.schemas import (
    Audience,
    AudienceChange,
    AudiencePage,
    Members,
    MembersChanged,
    NewAudience,
)
from api.auth import Caller
from api.pages import TwoWayParameters
from api.route_options import route_options
from api.transactions import Transactions
from api.validation import JSONBody

READ = route_options("read:audiences", "reads")
WRITE = route_options("write:audiences", "writes")

AnyRequest = Request[Any, Any, Any]


class AudienceController(Controller):
    path = "/audiences"
    tags = ("Audiences",)

    @get("/", opt=READ, summary="List audiences, newest first")
    async def page(self, asked: TwoWayParameters, caller: Caller, state: State) -> Response[AudiencePage]:
        async with state.engine.connect() as connection:
            return _answer(await lists.page(connection, caller, asked)).response()

    @post("/", dto=JSONBody, return_dto=None, opt=WRITE, summary="Create an audience")
    async def create(
        self, request: AnyRequest, data: NewAudience, caller: Caller, transactions: Transactions
    ) -> Response[Audience]:
        async def work(connection: AsyncConnection) -> Answer:
            return _answer(await writes.create(connection, caller, data), 201)

        return await transactions.run(request, caller, work)

    @get("/{audience_id:str}", opt=READ, summary="Get an audience")
    async def fetch(self, audience_id: str, caller: Caller, state: State) -> Response[Audience]:
        async with state.engine.connect() as connection:
            return _answer(await writes.get(connection, caller, audience_id)).response()

    @put("/{audience_id:str}", dto=JSONBody, return_dto=None, opt=WRITE, summary="Change an audience")
    async def update(
        self, request: AnyRequest, audience_id: str, data: AudienceChange, caller: Caller, transactions: Transactions
    ) -> Response[Audience]:
        async def work(connection: AsyncConnection) -> Answer:
            return _answer(await writes.update(connection, caller, audience_id, data))

        return await transactions.run(request, caller, work)

    @delete("/{audience_id:str}", opt=WRITE, status_code=200, summary="Delete an audience")
    async def remove(
        self, request: AnyRequest, audience_id: str, caller: Caller, transactions: Transactions
    ) -> Response[Audience]:
        async def work(connection: AsyncConnection) -> Answer:
            return _answer(await writes.delete(connection, caller, audience_id))

        return await transactions.run(request, caller, work)

    @post(
        "/{audience_id:str}/members", dto=JSONBody, return_dto=None, opt=WRITE, status_code=200, summary="Add members"
    )
    async def add_members(
        self, request: AnyRequest, audience_id: str, data: Members, caller: Caller, transactions: Transactions
    ) -> Response[MembersChanged]:
        async def work(connection: AsyncConnection) -> Answer:
            return _answer(await writes.add_members(connection, caller, audience_id, data))

        return await transactions.run(request, caller, work)

    @delete(
        "/{audience_id:str}/members",
        dto=JSONBody,
        return_dto=None,
        opt=WRITE,
        status_code=200,
        summary="Remove members",
    )
    async def remove_members(
        self, request: AnyRequest, audience_id: str, data: Members, caller: Caller, transactions: Transactions
    ) -> Response[MembersChanged]:
        async def work(connection: AsyncConnection) -> Answer:
            return _answer(await writes.remove_members(connection, caller, audience_id, data))

        return await transactions.run(request, caller, work)

    @put("/{audience_id:str}/members", dto=JSONBody, return_dto=None, opt=WRITE, summary="Replace a synced list")
    async def replace_members(
        self, request: AnyRequest, audience_id: str, data: Members, caller: Caller, transactions: Transactions
    ) -> Response[MembersChanged]:
        async def work(connection: AsyncConnection) -> Answer:
            return _answer(await writes.replace_members(connection, caller, audience_id, data))

        return await transactions.run(request, caller, work)


def _answer(what: Any, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(what))
