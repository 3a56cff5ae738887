"""Health checks: whether the process runs, and whether it can answer requests."""

from typing import Literal

import msgspec
from litestar import Controller, Response, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi.datastructures import ResponseSpec

from api.edge import OPERATIONS
from api.inputs import parameters as parameters_of
from api.readiness import Readiness
from api.request import AnyRequest
from api.validation import Input


class Live(msgspec.Struct):
    """The process runs."""

    status: str = "ok"
    """Always `ok`."""


class Ready(msgspec.Struct, rename="camel"):
    """Whether the process can answer requests.

    The process is ready if it can write to the database. With `for=reads`, search must be available too. The queue is
    never required, because wake-ups may be lost at any time.
    """

    status: str
    """`ok`, `unavailable`, or `stopping`: the process ends soon, and serves requests until then."""
    database: str
    """`ok` or `unavailable`: whether the process can write to PostgreSQL."""
    search: str
    """`ok` or `unavailable`: whether OpenSearch answers a search of the process."""
    queue: str
    """`ok` or `unavailable`: whether Valkey or Redis answers the process."""


class ReadyForOperators(Ready, rename="camel"):
    """`Ready`, and the age of the oldest change of any environment that is not searchable yet; null if unknown."""

    index_lag_ms: int | None


class ReadyParameters(Input):
    purpose: Literal["writes", "reads"] = msgspec.field(default="writes", name="for")
    """The requests that the process must be ready for. `reads` is for a balancer that balances reads apart."""


class HealthController(Controller):
    path = "/health"
    tags = ("Service",)

    @get("/live", summary="Check that the process runs", description="Asks no other server.")
    async def live(self) -> Live:
        return Live()

    @get(
        "/ready",
        summary="Check that the process can answer requests",
        description="Answered from checks in the background, one a second, so the answer waits for no server.",
        responses={503: ResponseSpec(Ready, generate_examples=False)},
        dependencies={"parameters": Provide(parameters_of, sync_to_thread=False)},
    )
    async def ready(self, request: AnyRequest, parameters: ReadyParameters, state: State) -> Response[Ready]:
        readiness: Readiness = state.readiness
        up = {name: readiness.is_up(name) for name in ("database", "search", "queue")}
        is_ready = up["database"] and (up["search"] or parameters.purpose == "writes")
        status = "stopping" if readiness.is_stopping else _word(is_ready)
        words = {name: _word(up[name]) for name in up}
        body = Ready(status=status, **words)
        if request.scope["state"][OPERATIONS]:
            # The lag shows how much all merchants write, so it is for operators only.
            body = ReadyForOperators(status=status, **words, index_lag_ms=readiness.lag_ms)
        return Response(body, status_code=200 if status == "ok" else 503)


def _word(is_up: bool) -> str:  # noqa: FBT001 (the only argument, clear at each call)
    return "ok" if is_up else "unavailable"
