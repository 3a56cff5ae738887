"""Verifying and repairing the index, for those who run the service: keys with the scope `admin`."""

import json
from datetime import datetime
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from litestar import Controller, Request, Response, get, post
from litestar.datastructures import State
from sqlalchemy.ext.asyncio import AsyncConnection

from api.answers import Answer
from api.auth import Caller
from api.errors import Fault, invalid
from api.operations.options import READ, WRITE
from api.transactions import Transactions
from api.validation import Body, JSONBody
from infra.accounts.organizations import OrganizationError, named_environment
from infra.operations import verify as verifications
from infra.operations.verify import Difference, Kind, Run, VerificationError
from infra.wire import time

RUNS = 20
DIFFERENCES = 100

AnyRequest = Request[Any, Any, Any]
Environment = Annotated[str, msgspec.Meta(description="This one alone, such as `shop:live`.")]
RunNumber = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]


class Verification(Body):
    """What to compare: everything, unless an environment is named."""

    environment: Environment | None = None


class Repair(Body):
    """What to mend: all that differs, or that of one environment, or what a run found."""

    environment: Environment | None = None
    run: RunNumber | None = None


class Verifications(msgspec.Struct, rename="camel"):
    """The last runs, the latest first, and what is known to differ."""

    runs: list[Run]
    differing: dict[str, int]
    """Documents by cause."""
    differences: list[Difference]
    """Of the latest run that found any, the first hundred."""


class VerifyController(Controller):
    path = "/ops/index"
    tags = ("Operations",)

    @get("/verify", opt=READ, summary="What was verified, and what differs")
    async def verifications(self, state: State) -> Response[Verifications]:
        async with state.engine.connect() as connection:
            return _answer(await connection.run_sync(_told)).response()

    @post(
        "/verify",
        dto=JSONBody,
        return_dto=None,
        opt=WRITE,
        status_code=202,
        summary="Compare the index with the database",
    )
    async def verify(
        self, request: AnyRequest, data: Verification, caller: Caller, transactions: Transactions
    ) -> Response[Run]:
        async def work(connection: AsyncConnection) -> Answer:
            return _answer(await connection.run_sync(_asked, "verify", data.environment, None), 202)

        return await transactions.run(request, caller, work)

    @post(
        "/repair",
        dto=JSONBody,
        return_dto=None,
        opt=WRITE,
        status_code=202,
        summary="Have written anew what differs",
    )
    async def repair(
        self, request: AnyRequest, data: Repair, caller: Caller, transactions: Transactions
    ) -> Response[Run]:
        if data.environment is not None and data.run is not None:
            raise invalid(Fault("environment", "A run is of its own environment already"))

        async def work(connection: AsyncConnection) -> Answer:
            return _answer(await connection.run_sync(_asked, "repair", data.environment, data.run), 202)

        return await transactions.run(request, caller, work)


def _told(connection: sa.Connection) -> Verifications:
    runs = verifications.latest(connection, RUNS)
    number = next((run.id for run in runs if run.differences), None)
    found = [] if number is None else verifications.differences(connection, number, DIFFERENCES)
    return Verifications(runs, verifications.known(connection), found)


def _asked(connection: sa.Connection, kind: Kind, environment: str | None, repairs: int | None) -> Run:
    """The run that was added; beat has it begun within a second."""
    try:
        number = None if environment is None else named_environment(connection, environment)
    except OrganizationError as error:
        raise invalid(Fault("environment", str(error))) from None
    try:
        added = verifications.request(connection, kind, environment_id=number, repairs=repairs)
    except VerificationError as error:
        raise invalid(Fault("run", str(error))) from None
    run = verifications.run(connection, added)
    assert run, "it was added just now"
    return run


def _answer(what: Any, status: int = 200) -> Answer:
    plain = msgspec.to_builtins(what, builtin_types=(datetime,))
    return Answer(status, json.dumps(plain, default=time).encode())
