"""Route to return parked changes to the drain, for operators."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any, ClassVar

import msgspec
import sqlalchemy as sa
from litestar import Response, post
from litestar.datastructures import State

from api.errors import Fault, invalid
from api.operations.answers import accepted
from api.operations.options import WRITE_BY_IDS
from api.transactions import Transaction
from api.validation import Input
from infra.accounts.organizations import OrganizationError, named_environment
from infra.operations import outbox
from infra.queue import DRAIN

MAX_IDS = 1000

Environment = Annotated[str, msgspec.Meta(description="Only changes of this environment, such as `shop:live`.")]
Ids = Annotated[
    list[str], msgspec.Meta(min_length=1, max_length=MAX_IDS, description="Only changes of these consumers.")
]


class RetryParked(Input):
    """The parked changes to try again: all, or those that meet both conditions."""

    environment: Environment | None = None
    ids: Ids | None = None

    example: ClassVar[dict[str, Any]] = {"environment": "shop:live"}


class Retried(msgspec.Struct):
    """The changes that are tried again, up to five times each."""

    retried: int
    """Number of changes."""

    example: ClassVar[dict[str, Any]] = {"retried": 2}


@post(
    "/ops/index/retry-parked",
    opt=WRITE_BY_IDS,
    status_code=HTTPStatus.ACCEPTED,
    tags=["Operations"],
    summary="Return parked changes to the drain",
)
async def retry_parked(payload: RetryParked, transaction: Transaction, state: State) -> Response[Retried]:
    response = await transaction.run_sync(_retry, payload, render=accepted)
    await asyncio.to_thread(state.task_queue.send, DRAIN)
    return response


def _retry(connection: sa.Connection, payload: RetryParked) -> Retried:
    try:
        number = None if payload.environment is None else named_environment(connection, payload.environment)
    except OrganizationError as error:
        raise invalid(Fault("environment", str(error))) from None
    return Retried(outbox.retry(connection, environment_id=number, ids=payload.ids))
