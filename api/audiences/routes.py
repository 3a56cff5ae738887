"""The audiences' endpoints (contract.md §4). The lists of members are in `api/consumers/members.py`."""

from litestar import Controller, Response, delete, get, post, put
from litestar.datastructures import State

from api.answers import Answer, created, location, ok
from api.audiences import lists, writes
from api.audiences.schemas import (
    Audience,
    AudienceCreate,
    AudienceListParameters,
    AudiencePage,
    AudienceUpdate,
    Members,
    MembersChanged,
)
from api.audiences.writes import RuleLimits
from api.auth import Caller
from api.route_options import route_options
from api.transactions import Transaction

READ = route_options("read:audiences", "reads")
WRITE = route_options("write:audiences", "writes")
# A write that names consumers tells which consumers exist.
WRITE_MEMBERS = route_options(("write:audiences", "read:consumers"), "writes", ids_key="consumerIds")


class AudienceController(Controller):
    path = "/audiences"
    tags = ("Audiences",)

    @get("/", opt=READ, summary="List audiences, newest first")
    async def page(self, parameters: AudienceListParameters, caller: Caller, state: State) -> Response[AudiencePage]:
        async with state.budget.connection(caller) as connection:
            return ok(await lists.page(connection, caller, parameters)).response()

    @post("/", opt=WRITE, summary="Create an audience")
    async def create(
        self, payload: AudienceCreate, caller: Caller, transaction: Transaction, state: State
    ) -> Response[Audience]:
        return await transaction.run(writes.create, caller, _limits(state), payload, render=_created)

    @get("/{audience_id:str}", opt=READ, summary="Get an audience")
    async def fetch(self, audience_id: str, caller: Caller, state: State) -> Response[Audience]:
        async with state.budget.connection(caller) as connection:
            return ok(await writes.get(connection, caller, audience_id)).response()

    @put("/{audience_id:str}", opt=WRITE, summary="Change an audience")
    async def update(
        self, audience_id: str, payload: AudienceUpdate, caller: Caller, transaction: Transaction, state: State
    ) -> Response[Audience]:
        return await transaction.run(writes.update, caller, _limits(state), audience_id, payload, render=ok)

    @delete("/{audience_id:str}", opt=WRITE, status_code=200, summary="Delete an audience")
    async def remove(self, audience_id: str, caller: Caller, transaction: Transaction) -> Response[Audience]:
        return await transaction.run(writes.delete, caller, audience_id, render=ok)

    @post("/{audience_id:str}/members", opt=WRITE_MEMBERS, status_code=200, summary="Add members")
    async def add_members(
        self, audience_id: str, payload: Members, caller: Caller, transaction: Transaction
    ) -> Response[MembersChanged]:
        return await transaction.run(writes.add_members, caller, audience_id, payload, render=ok)

    @delete("/{audience_id:str}/members", opt=WRITE_MEMBERS, status_code=200, summary="Remove members")
    async def remove_members(
        self, audience_id: str, payload: Members, caller: Caller, transaction: Transaction
    ) -> Response[MembersChanged]:
        return await transaction.run(writes.remove_members, caller, audience_id, payload, render=ok)

    @put("/{audience_id:str}/members", opt=WRITE_MEMBERS, summary="Replace the members of a synced list")
    async def replace_members(
        self, audience_id: str, payload: Members, caller: Caller, transaction: Transaction
    ) -> Response[MembersChanged]:
        return await transaction.run(writes.replace_members, caller, audience_id, payload, render=ok)


def _limits(state: State) -> RuleLimits:
    return RuleLimits(state.settings.dynamic_audiences, state.settings.audience_rules_bytes)


def _created(audience: Audience) -> Answer:
    return created(audience, location("audiences", audience.id))
