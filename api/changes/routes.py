"""The feeds of changes: `/consumers/changes` and `/orders/changes` (contract.md §2 "Changes")."""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

import sqlalchemy as sa
from litestar import Response, Router, get
from litestar.datastructures import State
from sqlalchemy.ext.asyncio import AsyncConnection

from api.answers import Answer
from api.auth import Caller
from api.changes import feed as feeds
from api.changes.feed import Feed
from api.changes.positions import ChangeCursors
from api.changes.schemas import ChangesParameters, ConsumerChanges, OrderChanges
from api.changes.watch import Wait
from api.consistency import preferences_of
from api.orders.rows import COLUMNS as ORDER_COLUMNS
from api.orders.rows import encode as encode_order
from api.orders.rows import order_of
from api.request import AnyRequest
from api.route_options import route_options
from infra.index.documents import COLUMNS, ConsumerRow, consumer_json

MAX_WAIT_SECONDS = 30
CONSUMERS = sa.text(
    f"SELECT {COLUMNS} FROM consumers c WHERE c.environment_id + 0 = :environment_id AND c.id = ANY(:ids)"
)
ORDERS = sa.text(
    f"SELECT {ORDER_COLUMNS} FROM orders o WHERE o.environment_id + 0 = :environment_id AND o.id = ANY(:ids)"
)


async def _consumers(connection: AsyncConnection, caller: Caller, ids: Sequence[str]) -> dict[str, bytes]:
    rows = await connection.execute(CONSUMERS, {"environment_id": caller.environment_id, "ids": ids})
    return {row[0]: consumer_json(ConsumerRow._make(row)) for row in rows}


async def _orders(connection: AsyncConnection, caller: Caller, ids: Sequence[str]) -> dict[str, bytes]:
    rows = await connection.execute(ORDERS, {"environment_id": caller.environment_id, "ids": ids})
    return {row.id: encode_order(order_of(row)) for row in rows}


async def _answer(
    request: AnyRequest, state: State, caller: Caller, feed: Feed, parameters: ChangesParameters
) -> Answer:
    """Read a page. Wait for the first change, if the page is empty and the request prefers to wait."""
    cursors = ChangeCursors(caller.seal, feed.resource)
    wait = preferences_of(request, MAX_WAIT_SECONDS).wait
    until = asyncio.get_running_loop().time() + (wait or 0)
    while True:
        async with state.budget.connection(caller) as connection:
            await feeds.start(connection)
            page = await feeds.read(connection, caller, feed, parameters, state.settings.changes_days)
        seconds = until - asyncio.get_running_loop().time()
        if page.changes or page.has_more or seconds <= 0 or state.changes.is_stopping:
            break
        parameters = ChangesParameters(first=parameters.first, after=cursors.encode(page.position))
        await state.changes.wait(Wait(caller.environment_id, feed.resource, page.position.seen), seconds)
    headers = {} if wait is None else {"Preference-Applied": f"wait={wait}"}
    return Answer(HTTPStatus.OK, page.json(cursors), headers)


CONSUMER_FEED = Feed("consumers", "consumer", _consumers)
ORDER_FEED = Feed("orders", "order", _orders)


@get(
    "/consumers/changes",
    opt=route_options("read:consumers", "reads"),
    tags=["Consumers"],
    summary="Read what changed, oldest change first",
)
async def changes(
    request: AnyRequest, parameters: ChangesParameters, caller: Caller, state: State
) -> Response[ConsumerChanges]:
    return (await _answer(request, state, caller, CONSUMER_FEED, parameters)).response()


@get(
    "/orders/changes",
    opt=route_options("read:orders", "reads"),
    tags=["Orders"],
    summary="Read what changed, oldest change first",
)
async def order_changes(
    request: AnyRequest, parameters: ChangesParameters, caller: Caller, state: State
) -> Response[OrderChanges]:
    return (await _answer(request, state, caller, ORDER_FEED, parameters)).response()


router = Router("/", route_handlers=[changes, order_changes])
