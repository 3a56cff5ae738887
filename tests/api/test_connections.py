"""Clients that are silent, slow or malformed: they are closed or refused, and do not keep others out."""

import itertools
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import msgspec
import pytest
import sqlalchemy as sa

from tests.api.raw_http import Answer, connect, exchange, open_connections, parsed, read_to_end, send_slowly
from tests.service import Account, Service, new_account
from tests.waiting import wait_until

DESCRIPTORS, CONNECTIONS = 300, 320
IS_WAITING = sa.text("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass)")
GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n\r\n"
HEADERS_LIMIT = 32 * 1024


class FewDescriptors(Service):
    """An API process that may open few files. Clients have hours, so that no deadline frees a connection."""

    COMMANDS = Service.COMMANDS | {"api": ["tests.bench.few_descriptors", str(DESCRIPTORS), *Service.COMMANDS["api"]]}


@pytest.fixture(scope="module")
def narrow(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("narrow")
    running = FewDescriptors(service.database.on_other_ports(), folder, {"CLIENT_SECONDS": "7200"})
    running.start("api")
    yield running
    running.close()


@pytest.fixture(scope="module")
def hurried(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API with short deadlines."""
    folder = tmp_path_factory.mktemp("hurried")
    environ = {"CLIENT_SECONDS": "1", "IDLE_SECONDS": "1"}
    running = Service(service.database.on_other_ports(), folder, environ)
    running.start("api")
    yield running
    running.close()


def post(account: Account, *headers: str) -> bytes:
    """Return the request line and headers of a POST with a key."""
    lines = ["POST /api/v1/consumers/batch HTTP/1.1", "Host: x", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Authorization: {account.live.headers['authorization']}", "", ""]).encode()


@pytest.fixture
def neighbour(service: Service) -> Iterator[Account]:
    with new_account(service) as made:
        yield made


def read_list(service: Service, account: Account) -> int:
    headers = {"Authorization": account.live.headers["Authorization"]}
    return httpx.get(f"{service.url}/api/v1/consumers", headers=headers, timeout=30).status_code


@pytest.mark.parametrize("kind", ["nothing", "half of the headers", "half of a body"])
def test_waiting_connections_do_not_keep_others_out(
    narrow: Service, account: Account, neighbour: Account, kind: str
) -> None:
    sent = {
        "nothing": b"",
        "half of the headers": GET,
        "half of a body": post(account, "Content-Length: 100") + b"[",
    }[kind]
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(connect(narrow.url)).sendall(sent)
        assert {read_list(narrow, neighbour) for _ in range(20)} == {200}
        assert httpx.get(f"{narrow.operations_url}/health/ready").status_code == 200
    assert "connection_slots_full" in narrow.log("api")


def get_orders(account: Account) -> bytes:
    lines = ["GET /api/v1/orders HTTP/1.1", "Host: x", "Connection: close"]
    return "\r\n".join([*lines, f"Authorization: {account.live.headers['authorization']}", "", ""]).encode()


def test_running_requests_of_a_merchant_leave_connections_for_others(
    narrow: Service, account: Account, neighbour: Account
) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(narrow.url)) for _ in range(DESCRIPTORS // 4)]
        with account.database.engine.begin() as transaction:
            transaction.execute(sa.text("LOCK TABLE orders"))  # until the end of the transaction, the requests wait
            for connection in connections:
                connection.sendall(get_orders(account))
            wait_until(lambda: select.select(connections, [], [], 0)[0], what="a refusal")
            assert read_list(narrow, neighbour) == 200
        answers = [parsed(read_to_end(connection)) for connection in connections]
    refused = [answer.json["message"] for answer in answers if answer and answer.status == 429]
    assert any("Maximum of requests of an environment at the same time: 42" in message for message in refused)
    assert read_list(narrow, account) == 200


def test_connection_in_use_keeps_its_slot(narrow: Service, account: Account) -> None:
    with connect(narrow.url) as connection, ExitStack() as stack:
        with account.database.engine.begin() as transaction:
            transaction.execute(sa.text("LOCK TABLE orders"))  # until the end of the transaction, the request waits
            connection.sendall(get_orders(account))
            wait_until(lambda: transaction.execute(IS_WAITING).scalar_one(), what="the request")
            for _ in range(CONNECTIONS):
                stack.enter_context(connect(narrow.url))
            httpx.get(f"{narrow.url}/health/live").raise_for_status()
        answer = parsed(read_to_end(connection))
    assert answer
    assert answer.status == 200


def test_silent_connection_is_closed_without_a_response(hurried: Service) -> None:
    assert exchange(hurried.url, b"") is None
    assert exchange(hurried.url, b"\r\n") is None


def test_idle_connection_is_closed(hurried: Service) -> None:
    answer = exchange(hurried.url, GET + b"\r\n")
    assert answer
    assert (answer.status, answer.headers.get("connection")) == (200, None)


def test_incomplete_headers_are_408(hurried: Service) -> None:
    assert_refused(exchange(hurried.url, GET + b"X-Request-Id: late"), 408, "Request timeout")
    answer = exchange(hurried.url, GET + b"X-Request-Id: late\r\nA: ")
    assert_refused(answer, 408, "Request timeout")
    assert answer
    assert answer.headers["x-request-id"] == "late"


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("is_trickling", [False, True])
def test_incomplete_body_is_408(hurried: Service, account: Account, framing: str, *, is_trickling: bool) -> None:
    byte = b"1\r\n \r\n" if "chunked" in framing else b" "
    with connect(hurried.url) as connection:
        connection.sendall(post(account, framing) + byte)
        parts = itertools.repeat(byte) if is_trickling else iter(())
        answer = parsed(send_slowly(connection, parts, 0.1))
    assert_refused(answer, 408, "Request timeout")


def test_long_upload_that_keeps_the_pace_is_accepted(hurried: Service, account: Account) -> None:
    parts, size = 150, 8192
    with connect(hurried.url) as connection:
        connection.sendall(post(account, f"Content-Length: {parts * size + 2}", "Connection: close"))
        body = itertools.chain(itertools.repeat(b" " * size, parts), [b"[]"], itertools.repeat(b""))
        answer = parsed(send_slowly(connection, body, 0.02))
    assert answer
    assert (answer.status, answer.json) == (201, [])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_unread_response_is_given_up(hurried: Service) -> None:
    wait_until(lambda: not open_connections(hurried.url), what="the end of earlier connections")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", hurried.database.settings.port))
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 16)
        assert open_connections(hurried.url) == 1
        wait_until(lambda: not open_connections(hurried.url), what="the end of the connection")


def test_metrics_are_collected_once_for_many_scrapes(hurried: Service) -> None:
    def scrape() -> str:
        return httpx.get(f"{hurried.operations_url}/metrics").raise_for_status().text

    # Each scrape is a counted request, so two collections are never equal.
    wait_until(lambda: scrape() == scrape(), what="two equal scrapes")


def assert_refused(answer: Answer | None, status: int, error: str) -> None:
    assert answer
    assert (answer.status, answer.json["error"]) == (status, error)
    assert answer.json["requestId"] == answer.headers["x-request-id"]
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")


@pytest.mark.parametrize(
    "request_",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n ",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked, x\r\n\r\n",
    ],
)
def test_malformed_request_is_400_in_the_error_envelope(service: Service, request_: bytes) -> None:
    assert_refused(exchange(service.url, request_), 400, "Malformed request")


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"", b"x" * 3_000_000])
def test_headers_over_32_kib_are_431(service: Service, end: bytes) -> None:
    answer = exchange(service.url, GET + b"X-Request-Id: large\r\nA: " + b"a" * HEADERS_LIMIT + end)
    assert_refused(answer, 431, "Request headers too large")
    assert answer
    assert answer.headers["x-request-id"] == "large"


def test_more_than_100_headers_are_431(service: Service) -> None:
    headers = [b"A%d: a\r\n" % number for number in range(100)]
    assert_refused(exchange(service.url, GET + b"".join(headers) + b"\r\n"), 431, "Request headers too large")


def test_headers_of_almost_32_kib_are_accepted(service: Service) -> None:
    answer = exchange(service.url, GET + b"A: " + b"a" * (HEADERS_LIMIT - 100) + b"\r\n" + CLOSE)
    assert answer
    assert answer.status == 200


@pytest.mark.parametrize("end", [b" HTTP/1.1\r\n\r\n", b"", b"x" * 3_000_000])
def test_path_over_32_kib_is_414(service: Service, end: bytes) -> None:
    assert_refused(exchange(service.url, b"GET /" + b"a" * HEADERS_LIMIT + end), 414, "URI too long")


def test_requests_sent_far_ahead_are_not_all_read(service: Service) -> None:
    with connect(service.url) as connection:
        connection.sendall((GET + b"\r\n") * 1000)
        received = read_to_end(connection)
    assert 1 <= received.count(b"HTTP/1.1 200 ") <= 20
    assert received.count(b"HTTP/1.1 ") == received.count(b"HTTP/1.1 200 ")


def test_refused_body_is_answered_while_the_client_sends(service: Service) -> None:
    head = b"POST /api/v1/consumers HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\nConnection: close\r\n\r\n"
    with connect(service.url) as connection:
        connection.sendall(head)
        answer = parsed(read_to_end(connection))
        connection.sendall(b" " * 5_000_000)  # fails if the server has closed both sides
    assert answer
    assert answer.status == 401


def test_malformed_request_is_logged(service: Service) -> None:
    exchange(service.url, b"GET / HTTP/1.1\r\nX-Request-Id: malformed-1\r\nA: b\r\nno colon\r\n\r\n")
    [line] = wait_until(
        lambda: [line for line in service.log("api").splitlines() if "malformed-1" in line], what="the line"
    )
    assert msgspec.json.decode(line)["status"] == 400
