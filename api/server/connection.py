"""A connection of a client: HTTP/1.1 with limits on sizes and times (contract.md §1).

uvicorn's protocol parses the requests and runs the application. This class adds limits on the path, the headers and the
requests sent ahead of their responses, and deadlines for slow clients. A malformed request gets its response from the
application, with the envelope and a request id.
"""

import asyncio
import re
from functools import cache
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from api.bodies import BODY_FAILURE
from api.edge import REFUSAL
from api.metrics import METHODS
from api.server.slots import Slots, max_connections
from infra import settings

MAX_HEAD_BYTES = 32 * 1024
"""Limit of the path with its query, and of all headers together."""
MAX_HEADERS = 100
MAX_AHEAD = 16
"""Requests that a client may send before the response to an earlier request."""
PACE_BYTES = 64 * 1024
"""A client must send or receive so many bytes of a body, or its rest, in each period of CLIENT_SECONDS."""
MAX_PERIODS = 12
"""A request body must be complete after so many periods."""
MAX_IGNORED_BYTES = 16 * 1024 * 1024
"""The connection is closed if a body continues for so long after the response."""

LAST_REQUEST_SECONDS = 1.0
"""When the server stops, an idle connection stays open for so long, because a request may be under way. The response
ends the connection."""

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_PARSED_METHODS = frozenset(method.encode() for method in METHODS)
_SUBSTITUTE = b"PATCH"


class _Refused(Exception):  # noqa: N818 (a response to the sender, not a failure of the service)
    """Ends the parsing of a request."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


@cache
def _slots_of_process() -> tuple[Slots, int]:
    chosen = settings.load()
    return Slots(max_connections(chosen.database_pool)), chosen.client_seconds


class Connection(HttpToolsProtocol):
    """A connection and its requests, one after the other."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._slots, self._period = _slots_of_process()
        self._socket: asyncio.Transport
        self.transport: _ResponseTransport
        self._in_headers = self._in_body = False
        self._ignores_input = False
        """Whether the request is refused, or the connection closes: further bytes of the client are dropped."""
        self._is_stopping = False
        self._messages = self._header_bytes = self._unparsed_bytes = self._body_bytes = 0
        self._method: str | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        self._socket, self.transport = transport, _ResponseTransport(transport, self)
        self._slots.take(transport)
        self._start_reading_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._slots.release(self._socket)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_reading_timer()
        if self._writing:
            self._writing.cancel()

    def data_received(self, data: bytes) -> None:
        if self._ignores_input:
            return
        self._unset_keepalive_if_required()
        is_between, messages = not (self._in_headers or self._in_body), self._messages
        body_bytes = self._body_bytes if self._in_body else None
        try:
            self.parser.feed_data(self._with_parsed_method(data) if is_between else data)
        except httptools.HttpParserUpgrade:
            self.cycle.keep_alive = False  # no upgrade is offered, and the parser cannot continue
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.status if isinstance(cause, _Refused) else HTTPStatus.BAD_REQUEST)
        else:
            # Headers, unless the chunk has bytes of an earlier request; of a body, chunks without content (trailers).
            is_head = self._in_headers and self._messages <= messages + is_between
            if is_head or (self._in_body and self._body_bytes == body_bytes):
                self._unparsed_bytes += len(data)
                if self._unparsed_bytes - len(self.url) > MAX_HEAD_BYTES:
                    self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        self._await_client()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_AHEAD:
            raise _Refused(HTTPStatus.BAD_REQUEST)
        super().on_message_begin()
        self._in_headers = True
        self._messages += 1
        self._header_bytes = self._unparsed_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_HEAD_BYTES:
            raise _Refused(HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.scope["method"], self._method = self._method or self.scope["method"], None
        if self._is_stopping:
            self.cycle.keep_alive = False
        self._in_headers, self._in_body, self._unparsed_bytes = False, True, 0
        self._stop_reading_timer()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._body_bytes += len(body)
        if self.cycle.response_complete and self._body_bytes > MAX_IGNORED_BYTES:
            self._socket.abort()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False

    def on_response_complete(self) -> None:
        self.transport.flush()
        if self._in_body and self.expect_100_continue and not self._body_bytes:
            self.hang_up()  # the client waits for "100 Continue", and may send no body
        super().on_response_complete()
        self._await_receipt()
        self._await_client()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_receipt()

    def hang_up(self) -> None:
        """Close the connection after the response.

        While the client may still be sending, only the own side is closed. Otherwise the kernel would reset the
        connection, and the client could lose the response.
        """
        if self._socket.is_closing() or not (self._in_body or self._ignores_input):
            self._socket.close()
            return
        self._ignores_input = True
        self.flow.resume_reading()
        self._socket.write_eof()
        self._stop_reading_timer()
        self._reading = self.loop.call_later(self._period, self._socket.abort)

    def shutdown(self) -> None:
        """Let the next response end the connection. An idle connection is closed after a while."""
        self._is_stopping = True
        if not self._is_idle():
            self.cycle.keep_alive = False
        elif self._in_body or self._ignores_input:
            self._socket.close()
        elif not self._in_headers:
            self.loop.call_later(LAST_REQUEST_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self._is_idle() and not self._in_headers:
            self._socket.close()

    def _is_idle(self) -> bool:
        """Return whether every request has its response."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _await_client(self) -> None:
        """Note whether the server waits for this client, and since when."""
        if (is_idle := self._is_idle()) and (self._ignores_input or not self._in_body):
            self._slots.await_request(self._socket)
        elif self._in_body:
            self._slots.await_body(self._socket)
        else:
            self._slots.process(self._socket)
        if self._ignores_input:
            return
        if self._in_headers or self._in_body:
            self._start_reading_timer()
        elif self._messages:
            self._stop_reading_timer()
            if is_idle and self.timeout_keep_alive_task is None:
                idle_seconds, close = self.timeout_keep_alive, self.timeout_keep_alive_handler
                self.timeout_keep_alive_task = self.loop.call_later(idle_seconds, close)

    def _start_reading_timer(self, periods: int = 1) -> None:
        if self._reading is None:
            self._reading = self.loop.call_later(self._period, self._reading_timed_out, self._body_bytes, periods)

    def _stop_reading_timer(self) -> None:
        if self._reading:
            self._reading.cancel()
            self._reading = None

    def _reading_timed_out(self, bytes_before: int, periods: int) -> None:
        self._reading = None
        if self.flow.read_paused:  # the server itself is busy
            self._start_reading_timer(periods)
        elif self._in_body and self._body_bytes - bytes_before >= PACE_BYTES and periods < MAX_PERIODS:
            self._start_reading_timer(periods + 1)
        elif self._in_headers or self._in_body:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self._socket.close()

    def _await_receipt(self) -> None:
        """Start a deadline if the client has not received everything yet."""
        if self._writing is None and (size := self._socket.get_write_buffer_size()):
            self._writing = self.loop.call_later(self._period, self._writing_timed_out, size)

    def _writing_timed_out(self, size_before: int) -> None:
        self._writing = None
        if (size := self._socket.get_write_buffer_size()) and size_before - size < PACE_BYTES:
            self._socket.abort()
        else:
            self._await_receipt()

    def _refuse(self, status: HTTPStatus) -> None:
        """Ignore further input, and answer the request with an error."""
        self._ignores_input = True
        self._stop_reading_timer()
        if self._in_body and self._is_idle():
            self._socket.abort()
        elif self._in_body:
            self.cycle.keep_alive = False
            self.cycle.scope["state"][BODY_FAILURE] = status
            self.cycle.message_event.set()
        elif self._is_idle():
            self._answer(status)
        else:
            self.cycle.keep_alive = False  # an earlier request is being answered, and its response is the last

    def _answer(self, status: HTTPStatus) -> None:
        """Start a request in place of the refused one: the application answers with the status."""
        if not self._in_headers:
            super().on_message_begin()
        self._in_headers = False
        self.scope["method"], self.scope["path"], self.scope["raw_path"] = "-", "/", b"/"
        self.scope["query_string"], self.scope["state"] = b"", {**self.app_state, REFUSAL: status}
        self.cycle = RequestResponseCycle(
            self.scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        self._start_asgi_task(self.cycle, self.app)

    def _with_parsed_method(self, data: bytes) -> bytes:
        """Replace a method unknown to the parser, so that the application answers 405."""
        method = data[: max(data.find(b" ", 0, 33), 0)]
        if method in _PARSED_METHODS or not _METHOD.fullmatch(method):
            return data
        self._method = method.decode()
        return _SUBSTITUTE + data[len(method) :]


class _ResponseTransport(asyncio.Transport):
    """The transport of a connection, for uvicorn's code: closing is left to `Connection.hang_up`.

    uvicorn writes head and body of a response one after the other. They are sent together, because each call of the
    system to send takes as much time as a tenth of a short request.
    """

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        super().__init__()
        self._transport, self._connection = transport, connection
        self._unsent: list[bytes] = []
        self._is_closing = False

    def write(self, data: bytes) -> None:  # type: ignore[override]  # as uvicorn
        if not self._unsent:
            self._connection.loop.call_soon(self.flush)
        self._unsent.append(data)

    def flush(self) -> None:
        """Send what was written."""
        if self._unsent and not self._transport.is_closing():
            self._transport.writelines(self._unsent)
        self._unsent = []

    def close(self) -> None:
        self.flush()
        self._is_closing = True
        self._connection.hang_up()

    def is_closing(self) -> bool:
        return self._is_closing or self._transport.is_closing()
