"""The endpoints of live questions: OpenSearch's own paths below `/analytics`, read-only (contract.md §6)."""

from fnmatch import fnmatchcase

from litestar import Controller, Response, delete, get, post
from litestar.datastructures import State

from api.analytics import asking, points
from api.analytics.asking import Asked
from api.analytics.fields import ATTRIBUTES, KINDS, Kind
from api.analytics.parameters import body_of, form_of
from api.analytics.schemas import (
    CapabilityParameters,
    CountParameters,
    DeletedPoints,
    FieldsParameters,
    InfoParameters,
    LiveAnswer,
    LiveCapabilities,
    LiveCount,
    LiveCountAnswer,
    LiveFields,
    LiveInfo,
    LiveParameters,
    LiveSearch,
    NoBody,
    PointInTime,
    PointParameters,
    PointsToDelete,
)
from api.answers import ok
from api.auth import Caller
from api.error_codes import ErrorCode
from api.errors import Fault, invalid
from api.request import AnyRequest
from api.route_options import route_options
from infra.exports.attributes import Attribute

READ = route_options("read:analytics", "reads")
ASK = route_options("read:analytics", "reads", from_index=True, body_is_optional=True)
OPEN = route_options("read:analytics", "reads", body_is_optional=True)
BY_GET = "The body is that of the POST, or in the parameter `source`."
TYPES: dict[Kind, str] = {"count": "integer", "money": "double", "date": "date"}
"""Types of fields in OpenSearch; every other field is a keyword."""


class AnalyticsController(Controller):
    path = "/analytics"
    tags = ("Live questions",)

    @get("/", opt=READ, summary="Describe the server to clients of OpenSearch")
    async def info(self, parameters: InfoParameters) -> Response[LiveInfo]:
        del parameters
        return ok(LiveInfo(**LiveInfo.example)).response()

    @post(
        "/consumers/_search",
        opt=ASK,
        status_code=200,
        summary="Search and aggregate the consumers",
    )
    async def search(
        self, request: AnyRequest, payload: LiveSearch, parameters: LiveParameters, caller: Caller, state: State
    ) -> Response[LiveAnswer]:
        return await _search(Asked(request, state, caller), payload, parameters)

    @get("/consumers/_search", opt=ASK, summary="Search and aggregate the consumers, by GET", description=BY_GET)
    async def search_by_get(
        self, request: AnyRequest, payload: LiveSearch, parameters: LiveParameters, caller: Caller, state: State
    ) -> Response[LiveAnswer]:
        return await _search(Asked(request, state, caller), payload, parameters)

    @post(
        "/_search",
        opt=ASK,
        status_code=200,
        summary="Search the consumers at a point in time",
    )
    async def search_point(
        self, request: AnyRequest, payload: LiveSearch, parameters: LiveParameters, caller: Caller, state: State
    ) -> Response[LiveAnswer]:
        return await _search(Asked(request, state, caller), payload, parameters, needs_point=True)

    @get("/_search", opt=ASK, summary="Search the consumers at a point in time, by GET", description=BY_GET)
    async def search_point_by_get(
        self, request: AnyRequest, payload: LiveSearch, parameters: LiveParameters, caller: Caller, state: State
    ) -> Response[LiveAnswer]:
        return await _search(Asked(request, state, caller), payload, parameters, needs_point=True)

    @post("/consumers/_count", opt=ASK, status_code=200, summary="Count consumers")
    async def count(
        self, request: AnyRequest, payload: LiveCount, parameters: CountParameters, caller: Caller, state: State
    ) -> Response[LiveCountAnswer]:
        return await _count(Asked(request, state, caller), payload, parameters)

    @get("/consumers/_count", opt=ASK, summary="Count consumers, by GET", description=BY_GET)
    async def count_by_get(
        self, request: AnyRequest, payload: LiveCount, parameters: CountParameters, caller: Caller, state: State
    ) -> Response[LiveCountAnswer]:
        return await _count(Asked(request, state, caller), payload, parameters)

    @get("/consumers/_mapping", opt=READ, summary="List the fields and their types")
    async def mapping(
        self, request: AnyRequest, parameters: FieldsParameters, caller: Caller, state: State
    ) -> Response[LiveFields]:
        del parameters
        attributes = await Asked(request, state, caller).attributes()
        properties = {name: {"type": kind} for name, kind in _types(attributes).items()}
        return ok(LiveFields({"mappings": {"properties": properties}})).response()

    @post(
        "/consumers/_field_caps",
        opt=OPEN,
        status_code=200,
        summary="List the fields, and the uses of each",
    )
    async def capabilities(
        self, request: AnyRequest, payload: NoBody, parameters: CapabilityParameters, caller: Caller, state: State
    ) -> Response[LiveCapabilities]:
        del payload
        return await _capabilities(Asked(request, state, caller), parameters)

    @get(
        "/consumers/_field_caps",
        opt=OPEN,
        summary="List the fields, and the uses of each, by GET",
        description="The same as the POST.",
    )
    async def capabilities_by_get(
        self, request: AnyRequest, payload: NoBody, parameters: CapabilityParameters, caller: Caller, state: State
    ) -> Response[LiveCapabilities]:
        del payload
        return await _capabilities(Asked(request, state, caller), parameters)

    @post("/consumers/_search/point_in_time", opt=OPEN, status_code=200, summary="Hold the index as it is now")
    async def create_point(
        self, request: AnyRequest, payload: NoBody, parameters: PointParameters, caller: Caller, state: State
    ) -> Response[PointInTime]:
        del payload, parameters
        asked = Asked(request, state, caller)
        return ok(PointInTime(await state.points.open(asked.open_index(), caller))).response()

    @delete("/_search/point_in_time", opt=READ, status_code=200, summary="Release points in time")
    async def delete_points(
        self, request: AnyRequest, payload: PointsToDelete, parameters: InfoParameters, caller: Caller, state: State
    ) -> Response[DeletedPoints]:
        del parameters
        pits = [points.opened(caller.seal, text) for text in payload.pit_id]
        if faults := [
            Fault(f"pit_id[{index}]", "Not a point in time of this environment", ErrorCode.NOT_ALLOWED_HERE)
            for index, pit in enumerate(pits)
            if pit is None
        ]:
            raise invalid(*faults)
        await state.points.close(Asked(request, state, caller).open_index(), caller, [pit for pit in pits if pit])
        return ok(DeletedPoints([{"pit_id": text, "successful": True} for text in payload.pit_id])).response()


async def _search(
    asked: Asked, payload: LiveSearch, parameters: LiveParameters, *, needs_point: bool = False
) -> Response[LiveAnswer]:
    body = await body_of(payload, parameters, asked.state.turns)
    if needs_point and "pit" not in body:
        raise invalid(Fault("pit", "Required here: /analytics/consumers/_search needs none", ErrorCode.REQUIRED))
    return (await asking.search(asked, body, form_of(parameters))).response()


async def _count(asked: Asked, payload: LiveCount, parameters: CountParameters) -> Response[LiveCountAnswer]:
    return (await asking.count(asked, await body_of(payload, parameters, asked.state.turns))).response()


async def _capabilities(asked: Asked, parameters: CapabilityParameters) -> Response[LiveCapabilities]:
    attributes = await asked.attributes()
    patterns = (parameters.fields or "*").split(",")
    fields = {
        name: {kind: {"type": kind, "searchable": _is_searchable(name), "aggregatable": _is_aggregatable(name)}}
        for name, kind in _types(attributes).items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    return ok(LiveCapabilities(["consumers"], fields)).response()


def _types(attributes: list[Attribute]) -> dict[str, str]:
    known = {name: TYPES.get(kind, "keyword") for name, kind in KINDS.items()}
    return known | {f"{ATTRIBUTES}{attribute.path}": "keyword" for attribute in attributes}


def _is_searchable(name: str) -> bool:
    return KINDS.get(name) not in {"group", "presence"}


def _is_aggregatable(name: str) -> bool:
    return KINDS.get(name) != "presence"
