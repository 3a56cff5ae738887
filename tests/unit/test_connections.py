"""Connections to OpenSearch: responses of every form are read, and a connection that failed is not used again.

OpenSearch announces the length of every response, but a proxy in front of it may not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec
import pytest
from opensearchpy.exceptions import ConnectionError as NoAnswer
from opensearchpy.exceptions import ConnectionTimeout, NotFoundError

from infra.index import connections
from infra.index.connections import HttpConnection

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WHOLE = JSON + b"Content-Length: 2\r\n\r\n{}"
LONG_SECONDS = 60.0


class Node:
    """Answers each request with the next of its answers; None closes the connection, an empty one never comes."""

    def __init__(self, answers: Sequence[bytes | None]) -> None:
        self._answers = list(answers)
        self.serving: list[asyncio.Task[None] | None] = []
        self.accepted = 0
        self.requests: list[bytes] = []
        self.closed = asyncio.Event()
        self.received = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.serving.append(asyncio.current_task())
        with suppress(ConnectionError):
            while request := await reader.read(65536):
                self.requests.append(request)
                self.received.set()
                answer = self._answers.pop(0)
                writer.write(answer or b"")
                if answer is None or answer.endswith(b"END"):
                    break
        self.closed.set()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def with_node(
    answers: Sequence[bytes | None],
    use: Callable[[HttpConnection, Node], Awaitable[None]],
    **options: object,
) -> None:
    async def run() -> None:
        node = Node(answers)
        async with await asyncio.start_server(node.serve, "127.0.0.1", 0) as server:
            [address] = [socket.getsockname() for socket in server.sockets]
            connection = HttpConnection(*address, **{"timeout": LONG_SECONDS, **options})  # type: ignore[arg-type]
            await use(connection, node)
            await connection.close()
            await asyncio.gather(*filter(None, node.serving))

    asyncio.run(run())


async def get(connection: HttpConnection) -> bytes:
    status, _, body = await connection.perform_request("GET", "/")
    assert status == 200
    return body


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (WHOLE, b"{}"),
        (JSON + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", b"{}"),
        (JSON + b"\r\n{} up to the END", b"{} up to the END"),
        (JSON + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
    ],
)
def test_response_is_read_to_its_end(answer: bytes, body: bytes) -> None:
    async def use(connection: HttpConnection, _: Node) -> None:
        assert await get(connection) == body
        assert await get(connection) == b"{}"

    with_node([answer, WHOLE], use)


def test_response_to_head_has_no_body() -> None:
    async def use(connection: HttpConnection, _: Node) -> None:
        status, headers, body = await connection.perform_request("HEAD", "/")
        assert (status, headers["content-length"], body) == (200, "2", b"")
        assert await get(connection) == b"{}"

    with_node([JSON + b"Content-Length: 2\r\n\r\n", WHOLE], use)


@pytest.mark.parametrize("answer", [None, JSON + b"Content-Length: 9\r\n\r\n{}END", b"220 mail.example.com ESMTP\r\n"])
def test_lost_or_invalid_response_is_no_answer_and_the_next_request_connects_again(answer: bytes | None) -> None:
    async def use(connection: HttpConnection, node: Node) -> None:
        with pytest.raises(NoAnswer) as failure:
            await get(connection)
        assert not isinstance(failure.value, ConnectionTimeout)
        assert await get(connection) == b"{}"
        assert node.accepted == 2

    with_node([answer, WHOLE], use)


def test_late_response_is_a_timeout_and_closes_its_connection() -> None:
    async def use(connection: HttpConnection, node: Node) -> None:
        with pytest.raises(ConnectionTimeout):
            await connection.perform_request("GET", "/", timeout=0.01)
        await node.closed.wait()
        assert await get(connection) == b"{}"

    with_node([b"", WHOLE], use)


def test_cancelled_request_closes_its_connection() -> None:
    async def use(connection: HttpConnection, node: Node) -> None:
        request = asyncio.create_task(get(connection))
        await node.received.wait()
        request.cancel()
        await node.closed.wait()
        assert await get(connection) == b"{}"

    with_node([b"", WHOLE], use)


def test_connection_is_used_again_until_it_was_idle_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(connection: HttpConnection, node: Node) -> None:
        for _ in range(3):
            await get(connection)
        assert node.accepted == 1
        monkeypatch.setattr(connections, "IDLE_SECONDS", 0)
        await get(connection)
        assert node.accepted == 2

    with_node([WHOLE] * 4, use)


def test_connection_closed_by_the_node_while_idle_is_replaced() -> None:
    async def use(connection: HttpConnection, node: Node) -> None:
        await get(connection)
        await node.closed.wait()
        [idle] = connection._idle  # noqa: SLF001 (nothing public shows when the close has arrived)
        while idle.is_usable():  # noqa: ASYNC110 (as above)
            await asyncio.sleep(0)
        assert await get(connection) == b"{}"

    with_node([JSON + b"Content-Length: 3\r\n\r\nEND", WHOLE], use)


def test_more_requests_than_connections_wait() -> None:
    async def use(connection: HttpConnection, node: Node) -> None:
        await asyncio.gather(*(get(connection) for _ in range(9)))
        assert node.accepted == 2

    with_node([WHOLE] * 9, use, pool_maxsize=2)


def test_error_names_the_kind_and_has_the_details() -> None:
    body = b'{"error": {"type": "index_not_found_exception"}, "status": 404}'
    head = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def use(connection: HttpConnection, _node: Node) -> None:
        with pytest.raises(NotFoundError) as failure:
            await get(connection)
        assert failure.value.error == "index_not_found_exception"
        assert failure.value.info == msgspec.json.decode(body)
        status, _, content = await connection.perform_request("GET", "/", ignore=[404])
        assert (status, content) == (404, body)

    with_node([head + body] * 2, use)


def test_request_has_its_parts() -> None:
    async def use(connection: HttpConnection, node: Node) -> None:
        body, params = '{"name":"Zoë"}', {"routing": "a b", "preference": "_local"}
        await connection.perform_request("POST", "/i/_search", params, body, headers={"X-Opaque-Id": "7"})
        head, _, content = node.requests[0].partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        assert line == "POST /below/i/_search?routing=a+b&preference=_local HTTP/1.1"
        headers = dict(each.split(": ", 1) for each in lines)
        assert headers["host"] == connection.host.removeprefix("http://")
        assert headers["content-type"] == "application/json"
        assert headers["authorization"] == "Basic dXNlcjpwYXNz"
        assert (headers["x-opaque-id"], int(headers["content-length"])) == ("7", len(content))
        assert content == body.encode()

    with_node([WHOLE], use, url_prefix="below", http_auth="user:pass")


def test_port_of_the_scheme_is_left_out_of_the_host() -> None:
    for scheme, port in (("http", 80), ("https", 443)):
        connection = HttpConnection("search.example.com", port, use_ssl=scheme == "https")
        request = connection._request("GET", "/", b"", None)  # noqa: SLF001 (an address on such a port needs rights)
        assert b"\r\nhost: search.example.com\r\n" in request
