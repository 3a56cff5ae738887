"""Routes to verify and repair the index, for operators."""

from http import HTTPStatus
from typing import Annotated, Any, ClassVar

import msgspec
import sqlalchemy as sa
from litestar import Controller, Response, get, post
from litestar.datastructures import State

from api.errors import Fault, invalid
from api.operations.answers import accepted, ok
from api.operations.options import READ, WRITE
from api.transactions import Transaction
from api.validation import Input
from infra.accounts.organizations import OrganizationError, named_environment
from infra.operations.verify import (
    CAUSES,
    Difference,
    Run,
    RunKind,
    VerificationError,
    find_run,
    known_differences,
    latest_runs,
    request_run,
    stored_differences,
)

MAX_RUNS = 20
MAX_DIFFERENCES = 100

Environment = Annotated[str, msgspec.Meta(description="Limit the run to this environment, such as `shop:live`.")]
RunId = Annotated[
    int, msgspec.Meta(ge=1, le=(1 << 63) - 1, description="Repair only the differences that this run found.")
]


class Verification(Input):
    """The documents to compare: all, or only the documents of an environment."""

    environment: Environment | None = None

    example: ClassVar[dict[str, Any]] = {}


class Repair(Input):
    """The documents to repair: all, the documents of an environment, or the differences found by a run."""

    environment: Environment | None = None
    run: RunId | None = None

    example: ClassVar[dict[str, Any]] = {"run": 12}


class Verifications(msgspec.Struct, rename="camel"):
    """The latest runs, newest first, and the documents known to differ."""

    runs: list[Run]
    """At most 20 runs."""
    differing: dict[str, int]
    """Documents known to differ, by cause."""
    differences: list[Difference]
    """The first 100 differences of the latest run with differences."""

    example: ClassVar[dict[str, Any]] = {
        "runs": [Run.example],
        "differing": dict.fromkeys(CAUSES, 0) | {"stale": 1},
        "differences": [Difference.example],
    }


class VerifyController(Controller):
    path = "/ops/index"
    tags = ("Operations",)

    @get("/verify", opt=READ, summary="List verifications and known differences")
    async def verifications(self, state: State) -> Response[Verifications]:
        async with state.engine.connect() as connection:
            return ok(await connection.run_sync(_verifications)).response()

    @post(
        "/verify",
        opt=WRITE,
        status_code=HTTPStatus.ACCEPTED,
        summary="Compare the index with the database",
    )
    async def verify(self, payload: Verification, transaction: Transaction) -> Response[Run]:
        return await transaction.run_sync(_request, "verify", payload.environment, None, render=accepted)

    @post(
        "/repair",
        opt=WRITE,
        status_code=HTTPStatus.ACCEPTED,
        summary="Rewrite documents that differ from the database",
    )
    async def repair(self, payload: Repair, transaction: Transaction) -> Response[Run]:
        if payload.environment is not None and payload.run is not None:
            raise invalid(Fault("environment", "Not allowed with run, which has an environment of its own"))
        return await transaction.run_sync(_request, "repair", payload.environment, payload.run, render=accepted)


def _verifications(connection: sa.Connection) -> Verifications:
    runs = latest_runs(connection, MAX_RUNS)
    run_id = next((run.id for run in runs if run.differences), None)
    differences = [] if run_id is None else stored_differences(connection, run_id, MAX_DIFFERENCES)
    return Verifications(runs, known_differences(connection), differences)


def _request(connection: sa.Connection, kind: RunKind, environment: str | None, repairs: int | None) -> Run:
    """Request a run and return the run. No wake-up is sent: beat's process starts the run within a second."""
    try:
        number = None if environment is None else named_environment(connection, environment)
    except OrganizationError as error:
        raise invalid(Fault("environment", str(error))) from None
    try:
        run_id = request_run(connection, kind, environment_id=number, repairs=repairs)
    except VerificationError as error:
        raise invalid(Fault("run", str(error))) from None
    run = find_run(connection, run_id)
    assert run, "requested in this transaction"
    return run
