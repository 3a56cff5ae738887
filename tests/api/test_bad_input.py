"""Invalid input is refused with a message and stores nothing; unusual input is stored unchanged; never a 5xx."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.resources import count_rows
from tests.service import Account, Service, new_account

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def target(service: Service) -> Iterator[Account]:
    with new_account(service) as account:
        yield account


def count_all(account: Account) -> int:
    """Count the consumers of both environments."""
    return sum(
        count_rows(account, environment=number) for number in (account.live_environment, account.test_environment)
    )


def refused(account: Account, response: httpx.Response, before: int) -> None:
    assert response.status_code == 400, response.text[:500]
    assert response.json()["requestId"] == response.headers["X-Request-Id"]
    assert count_all(account) == before


def number(text: str) -> bytes:
    return b'{"metadata": {"n": %b}}' % text.encode()


BROKEN = {
    "nothing": b"",
    "white space": b" \n",
    "cut off": b'{"fullName": "Some',
    "cut off after a key": b'{"fullName"',
    "trailing comma": b'{"fullName": "A",}',
    "two values": b'{"fullName": "A"} {}',
    "single quotes": b"{'fullName': 'A'}",
    "comment": b'{"fullName": "A" /* */}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"fullName": "A"}'.encode("utf-16"),
    "Latin-1": b'{"fullName": "Jos\xe9"}',
    "overlong UTF-8": b'{"fullName": "\xc0\xaf"}',
    "encoded surrogate": b'{"fullName": "\xed\xa0\x80"}',
    "lone surrogate": b'{"fullName": "\\ud800"}',
    "lone low surrogate": b'{"metadata": {"\\udc00": 1}}',
    "surrogates the wrong way round": b'{"externalId": "\\udc00\\ud800"}',
    "NUL": b'{"fullName": "a\\u0000b"}',
    "NUL in a key": b'{"metadata": {"a\\u0000": 1}}',
    "NUL deep inside": b'{"metadata": {"a": [{"b": "\\u0000"}]}}',
    "raw NUL": b'{"fullName": "a\x00b"}',
    "raw control character": b'{"fullName": "a\nb"}',
    "repeated key": b'{"fullName": "A", "fullName": "B"}',
    "repeated key deep inside": b'{"metadata": {"a": {"b": 1, "b": 1}}}',
    "repeated key by escape": b'{"fullName": "A", "full\\u004eame": "B"}',
    "arrays without end": b"[" * 100_000,
    "objects without end": b'{"metadata":' * 20_000,
    "deep but closed": b'{"metadata": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
    **{
        text: number(text)
        for text in ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "01", "+1", ".5", "1.", "0x1")
    },
    "5000 digits": number("1" * 5000),
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("path", ["/consumers", "/orders", "/orders/batch"])
def test_body_that_is_not_strict_json_is_400(target: Account, path: str, body: bytes) -> None:
    before = count_all(target)
    refused(target, target.live.post(path, content=body, headers=JSON), before)


ODD: list[Any] = [None, True, 0, -1, 2**63, 10**400, 1.5, "", "x", [], [[]], {}, {"a": None}, {"$ne": None}]


@pytest.mark.parametrize("value", ODD, ids=lambda value: json.dumps(value)[:20])
@pytest.mark.parametrize("path", ["/consumers", "/orders", "/orders/batch"])
def test_value_of_any_type_in_any_field_is_never_a_5xx(target: Account, path: str, value: Any) -> None:
    fields = {
        "/consumers": ["email", "phone", "fullName", "metadata", "externalId", "id", "totalOrders", "nope"],
        "/orders": [
            *("consumerId", "consumer", "externalId", "status", "amount", "refundedAmount", "currencyCode"),
            *("baseAmount", "items", "metadata", "placedAt", "nope"),
        ],
        "/orders/batch": ["orders", "nope"],
    }[path]
    bodies = [value, *({field: value} for field in fields), dict.fromkeys(fields, value), [value, {"amount": value}]]
    for body in bodies:
        before = count_all(target)
        response = target.live.post(path, content=json.dumps(body), headers=JSON)
        assert response.status_code in {201, 400}, (body, response.text)
        assert count_all(target) == before + (response.status_code == 201 and path == "/consumers")


def ask(account: Account, path: str, *headers: tuple[str, bytes]) -> tuple[int, dict[str, Any]]:
    """Send a path unchanged, because HTTP clients would normalise it."""
    address = account.live.base_url
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    try:
        connection.putrequest("GET", path)
        connection.putheader("Authorization", account.live.headers["Authorization"])
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    "identifier",
    [
        *("%00", "cons_%00", "%ff%fe", "%ED%A0%80", "%zz", "%", "%25", "a%2Fb", "..%2f..%2fetc%2fpasswd", "%0a", "%20"),
        *("cons_", "CONS_01HZXW0000000000000000000A", "cons_01HZXW0000000000000000000a", "x" * 7000, "'%20OR%201=1--"),
        *("%F0%9F%98%80", "ord_01HZXW0000000000000000000A", "*", "undefined", "null", "-1", "1e400"),
    ],
)
def test_malformed_id_is_404(target: Account, identifier: str) -> None:
    status, content = ask(target, f"/api/v1/consumers/{identifier}")
    assert status == 404
    assert content["error"] in {"Consumer not found", "Not found"}


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("search=%ff%fe", {"search"}),
        ("search=%ED%A0%80x", {"search"}),
        ("search=a%00b", {"search"}),
        ("after=%00", {"after"}),
        ("%00=1&%ff=2", {"\0", "?"}),
        ("first=1&first=1", {"first"}),
        ("first=1&FIRST=2", {"FIRST"}),
        ("first[]=1", {"first[]"}),
        ("first=%EF%BC%91", {"first"}),
        ("first=99999999999999999999", {"first"}),
        ("first=-1", {"first"}),
        ("first=1_0", {"first"}),
        ("first=NaN&last=Infinity", {"first", "last"}),
        ("first=%zz", {"first"}),
        ("sortBy=%zz&sortDir=x", {"sortBy", "sortDir"}),
        ("sortBy=_score", {"sortBy"}),
        ("createdAfter=2024-01-01T00:00:00+01:00", {"createdAfter"}),
        ("createdAfter=0000-01-01&createdBefore=99999-01-01", {"createdAfter", "createdBefore"}),
        ("search=" + "x" * 10_000, {"search"}),
        ("=1", {""}),
        ("x", {"x"}),
        ("&".join(f"p{n}=1" for n in range(100)), {f"p{n}" for n in range(100)}),
    ],
)
def test_invalid_query_is_400_and_names_its_parameters(target: Account, query: str, fields: set[str]) -> None:
    status, content = ask(target, f"/api/v1/consumers?{query}")
    assert status == 400
    assert {fault["field"] for fault in content["details"]} == fields


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?",
        "?&&",
        "?first=&after=&search=&sortBy=&include=",
        "?search=%zz%zz",
        "?search=a%2Bb",
        "?search=%F0%9F%98%80%F0%9F%98%80",
    ],
)
def test_unusual_but_valid_query_is_accepted(target: Account, query: str) -> None:
    assert ask(target, f"/api/v1/consumers{query}")[0] == 200


@pytest.mark.parametrize(
    "header",
    [
        ("Accept", b"\xff\xfe"),
        ("Accept", b"text/html"),
        ("Accept-Encoding", b"\xe9, gzip;q=zero, *"),
        ("Cookie", b"\xff=\xfe; ;;==;"),
        ("Content-Type", b"\xff\xfe"),
        ("X-Request-Id", b"\xff" * 500),
        ("If-None-Match", b"\xff"),
        ("Accept-Language", b"x" * 7000),
    ],
)
def test_malformed_header_is_harmless(target: Account, header: tuple[str, bytes]) -> None:
    assert ask(target, "/api/v1/consumers", header)[0] == 200
