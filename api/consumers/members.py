"""Lists of members: the list of consumers, limited to an audience (contract.md §4)."""

from http import HTTPStatus

import msgspec
from litestar import Controller, Response, get
from litestar.datastructures import State

from api.answers import Answer
from api.audiences import membership
from api.audiences.schemas import AudienceCount
from api.auth import Caller
from api.consumers import reads
from api.consumers.schemas import ListParameters
from api.consumers.shown import ConsumerPage
from api.request import AnyRequest
from api.route_options import route_options

COUNT = route_options("read:audiences", "reads", from_index=True)
READ = route_options(("read:audiences", "read:consumers"), "reads", from_index=True)


class MembersController(Controller):
    path = "/audiences"
    tags = ("Audiences",)

    @get("/{audience_id:str}/members", opt=READ, summary="List the members, as in the list of consumers")
    async def members(
        self, request: AnyRequest, audience_id: str, parameters: ListParameters, caller: Caller, state: State
    ) -> Response[ConsumerPage]:
        audience = await membership.find(state.budget, caller, audience_id)
        return (await reads.page(request, state, caller, parameters, audience)).response()

    @get("/{audience_id:str}/count", opt=COUNT, summary="Count the members")
    async def count(
        self, request: AnyRequest, audience_id: str, caller: Caller, state: State
    ) -> Response[AudienceCount]:
        audience = await membership.find(state.budget, caller, audience_id)
        number, headers = await reads.count(request, state, caller, audience)
        return Answer(HTTPStatus.OK, msgspec.json.encode(AudienceCount(audience_id, number)), headers).response()
