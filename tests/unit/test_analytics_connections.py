"""A live question ends with the connection of its client."""

import asyncio
from typing import Any, cast

import pytest

from api.analytics.connections import while_connected
from api.request import AnyRequest


class Connection:
    """The part of a request that tells when the client has gone."""

    def __init__(self) -> None:
        self.is_gone = asyncio.Event()

    async def receive(self) -> None:
        await self.is_gone.wait()
        raise ConnectionError


def test_question_ends_when_the_client_disconnects() -> None:
    async def main() -> None:
        connection, stopped = Connection(), asyncio.Event()

        async def search() -> None:
            connection.is_gone.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        with pytest.raises(ConnectionError):
            await while_connected(cast("AnyRequest", connection), search())
        await asyncio.wait_for(stopped.wait(), 60)

    asyncio.run(main())


def test_answer_and_error_of_a_question_are_passed_on() -> None:
    async def answer() -> int:
        return 5

    async def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        request: Any = Connection()
        assert await while_connected(request, answer()) == 5
        with pytest.raises(ZeroDivisionError):
            await while_connected(request, fail())

    asyncio.run(main())
