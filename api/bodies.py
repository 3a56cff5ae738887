"""Bodies of requests: their size is limited, large bodies wait for room, and an early end is refused."""

import math
import time
from http import HTTPStatus
from typing import cast

from litestar.types import HTTPReceiveMessage, HTTPScope, Receive, Scope

from api.auth import Requester
from api.error_codes import ErrorCode
from api.errors import SENTENCES, Problem
from api.room import Room
from api.route_options import OBJECT_BODY_BYTES, find_options
from api.turns import Turns

BODY_FAILURE = "body_failure"
"""The key in the scope's state for the status of a body that the server stopped reading: malformed, or too slow."""

WAITING_BYTES = 32 * 1024
"""A request with a larger body waits for a turn before it is authenticated, and before the body is parsed."""
ROOM_SECONDS = 10.0
"""A large body must be received in this time after it has entered the room, if others wait for the room."""


class RequestBody:
    """Receives a body for the application. `receive` takes the place of the ASGI server's function."""

    def __init__(self, scope: HTTPScope, receive: Receive) -> None:
        self._scope, self._receive = scope, receive
        self._bytes = self._room_bytes = 0
        self._entered_at = math.inf
        self.is_answered = False
        """Whether the response has begun. The response of a file waits for a disconnect: no fault then."""
        self.failed = False
        """Whether the client disconnected inside the body, or the body is malformed."""

    async def receive(self) -> HTTPReceiveMessage:
        """Receive the next part of the body.

        Of a large body, only the first `OBJECT_BODY_BYTES` are received before there is room for the body.

        With a `Content-Length` over the limit, no part is received. After `Expect: 100-continue`, the client then sends
        no body.

        Raises:
            Problem: 413 if the body is larger than the route allows; 400 if the client disconnects or sends malformed
                chunks; 408 if the client sends too slowly.
        """
        limit = self._limit()
        if self._bytes == 0 and self._announced_bytes() > limit:
            raise _too_large()
        message = cast("HTTPReceiveMessage", await self._receive())
        failure = self._scope["state"].get(BODY_FAILURE)
        if failure or (message["type"] == "http.disconnect" and not self.is_answered):
            await turns_of(self._scope).wait()  # many connections may end at once, and each error takes 0.5 ms
            if failure == HTTPStatus.REQUEST_TIMEOUT:
                raise too_slow()
            self.failed = True
            raise _incomplete()
        if message["type"] == "http.disconnect":
            return message
        self._bytes += len(message["body"])
        if self._bytes > limit:
            raise _too_large()
        if self._room_bytes:
            if message["more_body"] and not self.is_answered:
                self._refuse_if_others_wait()
        elif self._bytes > OBJECT_BODY_BYTES:
            size = self._announced_bytes() or limit
            await self._room().enter(self._owner(), size)
            self._room_bytes, self._entered_at = size, time.monotonic()
        return message

    def close(self) -> None:
        """Give back the room of a large body, after the response."""
        if self._room_bytes:
            self._room().leave(self._owner(), self._room_bytes)

    def _refuse_if_others_wait(self) -> None:
        if time.monotonic() - self._entered_at > ROOM_SECONDS and self._room().is_wanted():
            raise too_slow()

    def _room(self) -> Room:
        room: Room = self._scope["litestar_app"].state.room
        return room

    def _owner(self) -> str:
        requester: Requester = self._scope["auth"]
        return requester.counted_as

    def _limit(self) -> int:
        options = find_options(self._scope["route_handler"])
        return options.max_body_bytes if options else OBJECT_BODY_BYTES

    def _announced_bytes(self) -> int:
        value = next((value for name, value in self._scope["headers"] if name == b"content-length"), b"")
        return int(value) if value.isdigit() else 0


def may_be_large(scope: Scope) -> bool:
    """Return whether the body of a request has more than `WAITING_BYTES`, or an unknown size."""
    headers = dict(scope["headers"])
    announced = headers.get(b"content-length", b"")
    return b"transfer-encoding" in headers or (announced.isdigit() and int(announced) > WAITING_BYTES)


def turns_of(scope: Scope) -> Turns:
    turns: Turns = scope["litestar_app"].state.turns
    return turns


def _too_large() -> Problem:
    """Build the 413. The server closes the connection, because the remaining body is not read."""
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return Problem(status, SENTENCES[status], headers={"Connection": "close"})


def too_slow() -> Problem:
    """Build the 408 for a request whose headers or body arrive too slowly."""
    message = "The request was not complete in time; send it again"
    return Problem(HTTPStatus.REQUEST_TIMEOUT, SENTENCES[HTTPStatus.REQUEST_TIMEOUT], message=message)


def _incomplete() -> Problem:
    """Build the 400 for an incomplete body. After malformed chunks, the client still reads the response."""
    message = "The body ends early, or its chunks are malformed"
    return Problem(HTTPStatus.BAD_REQUEST, "Incomplete request body", code=ErrorCode.MALFORMED_REQUEST, message=message)
