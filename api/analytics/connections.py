"""A question ends with the connection of its client, because the answer could not be sent."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from api.request import AnyRequest

T = TypeVar("T")


async def while_connected(request: AnyRequest, work: Coroutine[Any, Any, T]) -> T:
    """Do the work of a request whose body has been read. If the client disconnects, the work is cancelled.

    Raises:
        Problem: the client has disconnected.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_until_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await leaving
        return await working
    finally:
        for task in (working, leaving):
            task.cancel()


async def _until_disconnected(request: AnyRequest) -> None:
    """Wait for the client to disconnect. The body of the request raises the error (`api/bodies.py`)."""
    while True:
        await request.receive()
