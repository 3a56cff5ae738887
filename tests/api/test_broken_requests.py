"""Requests that HTTP clients do not send: a broken host, broken chunks, a body that ends early."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from tests.service import Account, Service
from tests.waiting import wait_until


def connect(service: Service) -> socket.socket:
    address = urlsplit(service.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def head(account: Account, request_id: str, *headers: str) -> bytes:
    """Return the first bytes of a POST of a consumer, up to the body."""
    lines = [
        "POST /api/v1/consumers HTTP/1.1",
        "Host: x",
        f"Authorization: {account.live.headers['authorization']}",
        f"X-Request-Id: {request_id}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def statuses(service: Service, request_id: str) -> list[int]:
    """Return the statuses logged for a request."""
    named = [line for line in service.log("api").splitlines() if request_id in line]
    entries: list[dict[str, Any]] = [json.loads(line[line.index("{") :]) for line in named]
    return [entry["status"] for entry in entries if entry["event"] == "request"]


@pytest.mark.parametrize("host", ["x:abc", "[", "x:99999999"])
def test_any_host_is_accepted_with_an_idempotency_key(account: Account, host: str) -> None:
    headers = {"Host": host, "Idempotency-Key": "k1"}
    first, again = [account.live.post("/consumers", json={"fullName": "A"}, headers=headers) for _ in range(2)]
    assert first.status_code == 201
    assert (again.status_code, again.text) == (first.status_code, first.text)


@pytest.mark.parametrize("chunk", [b"fffffffffffffffffff\r\n", b"zz\r\n", b"-1\r\n", b"5\r\nabcdefgh\r\n"])
def test_malformed_chunk_is_400_and_not_counted_as_500(service: Service, account: Account, chunk: bytes) -> None:
    request_id = uuid4().hex
    with connect(service) as connection:
        connection.sendall(head(account, request_id, "Transfer-Encoding: chunked") + chunk)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 ")
    wait_until(lambda: statuses(service, request_id) == [499], what="the line of the request")


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_client_gone_inside_a_body_is_logged_as_499(service: Service, account: Account, framing: str) -> None:
    request_id = uuid4().hex
    with connect(service) as connection:
        connection.sendall(head(account, request_id, framing) + b"2\r\n{}\r\n")
    wait_until(lambda: statuses(service, request_id) == [499], what="the line of the request")
