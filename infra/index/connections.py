"""Connections to a node of OpenSearch, for the asynchronous client: HTTP/1.1 over asyncio, parsed by httptools.

The connections of opensearch-py use aiohttp, and take four times as much processor time for a search
(docs/decisions/0050-processor-time-of-requests.md). This class keeps the interface and the errors of opensearch-py.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

import httptools
import urllib3
from opensearchpy import Connection
from opensearchpy.exceptions import ConnectionError as NoAnswer
from opensearchpy.exceptions import ConnectionTimeout

SUCCESS = range(200, 300)
IDLE_SECONDS = 15.0
"""A connection that was idle for longer is not used again: a balancer may have dropped it."""

Sign = Callable[[str, str, bytes | None, dict[str, str]], Mapping[str, str]]
"""Returns the headers that sign a request: called with its method, address, body and headers."""


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes


class Stream(asyncio.Protocol):
    """A TCP connection, for one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Response] | None = None
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._is_head = self._ends_with_connection = False
        """Whether the response has no body; whether its headers announce no end of the body."""
        self._is_open = True
        self._idle_since = 0.0

    async def exchange(self, method: str, request: bytes) -> Response:
        """Send a request, and return the response.

        Raises:
            OSError: the connection was lost.
            HttpParserError: the response is not valid HTTP.
        """
        self._headers, self._parts, self._is_head = {}, [], method == "HEAD"
        answer = self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        response: Response = await answer
        self._idle_since = time.monotonic()
        return response

    def is_usable(self) -> bool:
        """Return whether a further request may be sent."""
        is_fresh = time.monotonic() - self._idle_since < IDLE_SECONDS
        return self._is_open and is_fresh and not self._transport.is_closing()

    def abort(self) -> None:
        self._is_open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.abort()  # no request asked for it, such as a 408 before the end of an idle connection
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open = False
        if self._ends_with_connection and exc is None:
            self._complete()
        self._fail(exc or ConnectionResetError("the node closed the connection"))

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        self._ends_with_connection = self._headers.keys().isdisjoint(("content-length", "transfer-encoding"))
        if not self._parser.should_keep_alive():
            self._is_open = False
        if self._is_head:
            self._complete()
            self.abort()  # the parser waits for a body of the announced length

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._complete()
        if not self._is_open:
            self._transport.abort()

    def _complete(self) -> None:
        answer, self._answer = self._answer, None
        if answer and not answer.done():
            answer.set_result(Response(self._parser.get_status_code(), self._headers, b"".join(self._parts)))

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        if answer and not answer.done():
            answer.set_exception(error)


class HttpConnection(Connection):
    """The connections of a client to a node. Further requests wait for one of `pool_maxsize` connections."""

    def __init__(
        self,
        host: str = "localhost",
        port: int | None = None,
        *,
        http_auth: str | Sign | None = None,
        ssl_context: ssl.SSLContext | None = None,
        pool_maxsize: int = 10,
        **options: Any,
    ) -> None:
        """Prepare the connections.

        Args:
            host: name or address of the node.
            port: of the node.
            http_auth: user and password, separated by a colon, or a function that signs each request.
            ssl_context: for addresses with `https://`.
            pool_maxsize: the maximum of connections.
            options: of opensearch-py, such as `timeout`.
        """
        super().__init__(host=host, port=port, **options)
        self._sign = http_auth if callable(http_auth) else None
        if isinstance(http_auth, str):
            self.headers |= urllib3.make_headers(basic_auth=http_auth)
        self._tls = (ssl_context or ssl.create_default_context()) if self.use_ssl else None
        # Without the port of the scheme, because signatures of AWS expect it so.
        self._authority = self.host.partition("://")[2].removesuffix(":443" if self.use_ssl else ":80")
        self._fixed_head = self._head_lines(self.headers)
        self._places = asyncio.Semaphore(pool_maxsize)
        self._idle: list[Stream] = []

    async def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        body: str | bytes | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 (a parameter of opensearch-py)
        ignore: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request, and return status, headers and body of the response.

        Raises:
            ConnectionTimeout: no answer within `timeout`, in seconds.
            NoAnswer: there was no connection, or the connection was lost.
            TransportError: the status is an error, and not in `ignore`.
        """
        path = self.url_prefix + url
        target = f"{path}?{urlencode(params)}" if params else path
        content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body or b""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout), self._places:
                response = await self._exchange(method, self._request(method, target, content, headers))
        except (OSError, httptools.HttpParserError) as error:
            self.log_request_fail(method, self.host + target, path, body, time.monotonic() - started, exception=error)
            if isinstance(error, TimeoutError):
                raise ConnectionTimeout("TIMEOUT", str(error), error) from error
            raise NoAnswer("N/A", str(error), error) from error
        status = response.status
        if "warning" in response.headers:
            self._raise_warnings([response.headers["warning"]])
        if status not in SUCCESS and status not in ignore:
            text = response.body.decode("utf-8", "replace")
            seconds = time.monotonic() - started
            self.log_request_fail(method, self.host + target, path, body, seconds, status_code=status, response=text)
            self._raise_error(status, text, response.headers.get("content-type"))
        return response

    async def close(self) -> None:
        for stream in self._idle:
            stream.abort()
        self._idle.clear()

    def _request(self, method: str, target: str, content: bytes, headers: Mapping[str, str] | None) -> bytes:
        head = self._fixed_head
        if headers or self._sign:
            own = self.headers | dict(headers or {})
            if self._sign:
                own |= self._sign(method, self.host + target, content or None, own)
            head = self._head_lines(own)
        length = f"content-length: {len(content)}\r\n" if content or method not in {"GET", "HEAD"} else ""
        return f"{method} {target} HTTP/1.1\r\n{head}{length}\r\n".encode("latin-1") + content

    def _head_lines(self, headers: Mapping[str, str]) -> str:
        own = {"host": self._authority} | {name.lower(): value for name, value in headers.items()}
        return "".join(f"{name}: {value}\r\n" for name, value in own.items())

    async def _exchange(self, method: str, request: bytes) -> Response:
        stream = await self._stream()
        try:
            response = await stream.exchange(method, request)
        except BaseException:  # a cancelled request as well: OpenSearch then stops the search
            stream.abort()
            raise
        if stream.is_usable():
            self._idle.append(stream)
        else:
            stream.abort()
        return response

    async def _stream(self) -> Stream:
        """Return an idle connection, or a new one."""
        while self._idle:
            if (stream := self._idle.pop()).is_usable():
                return stream
            stream.abort()
        name = self.hostname if self._tls else None
        _, opened = await asyncio.get_running_loop().create_connection(
            Stream, self.hostname, self.port, ssl=self._tls, server_hostname=name
        )
        return opened
