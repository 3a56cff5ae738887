"""The sizes of request bodies, and of the responses to faulty ones, are limited (contract.md §1)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from tests.service import Account

OBJECT, LIST = 256 * 1024, 10 * 1024 * 1024
JSON = {"Content-Type": "application/json"}
LIMITS = [
    ("POST", "/consumers", OBJECT),
    ("PUT", "/consumers/cons_1", OBJECT),
    ("POST", "/orders", OBJECT),
    ("PUT", "/audiences/aud_1", OBJECT),
    ("POST", "/consumers/batch", LIST),
    ("PUT", "/consumers/batch", LIST),
    ("POST", "/orders/batch", LIST),
    ("PUT", "/audiences/aud_1/members", LIST),
    ("DELETE", "/audiences/aud_1/members", LIST),
]


def parts(body: bytes) -> Iterator[bytes]:
    """Yield a body in parts: it is then sent in chunks, without its length."""
    for offset in range(0, len(body), 65536):
        yield body[offset : offset + 65536]


@pytest.mark.parametrize("framing", ["length", "chunks", "expect"])
@pytest.mark.parametrize(("method", "path", "limit"), LIMITS)
def test_body_over_the_limit_of_its_route_is_413(
    account: Account, method: str, path: str, limit: int, framing: str
) -> None:
    headers = JSON | ({"Expect": "100-continue"} if framing == "expect" else {})
    largest, larger = (b" " * (limit + excess - 2) + b"{}" for excess in (0, 1))
    content = parts(larger) if framing == "chunks" else larger
    refused = account.live.request(method, path, content=content, headers=headers)
    assert refused.status_code == 413
    assert refused.json() == {
        "error": "Request body too large",
        "code": "body_too_large",
        "requestId": refused.headers["X-Request-Id"],
    }
    assert account.live.request(method, path, content=largest, headers=headers).status_code != 413


def refused(account: Account, path: str, body: Any) -> dict[str, Any]:
    """Send a body with faults; return the response, which must be small."""
    response = account.live.post(path, content=msgspec.json.encode(body), headers=JSON)
    assert response.status_code == 400
    assert len(response.content) < 128 * 1024
    content: dict[str, Any] = response.json()
    return content


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/consumers", {f"k{number}": 1 for number in range(20_000)}, 20_000),
        ("/consumers/batch", {f"k{number}": 1 for number in range(500_000)} | {"consumers": 1}, 500_001),
        ("/consumers/batch", [{f"k{number}": 1 for number in range(1_000)}] * 400, 400_000),
        ("/consumers/batch", [1] * 500, 500),
        ("/orders/batch", [{"consumerId": "x", "amount": 1, "items": [{}] * 200}] * 500, 500 * 200 * 2 + 500),
        ("/consumers/batch", [{"externalId": "a"}] * 500, 499),
        ("/consumers/batch", [{"externalId": "a", "email": "a"}] * 500, 500 + 499),
    ],
)
def test_response_lists_100_faults_and_counts_the_others(account: Account, path: str, body: Any, count: int) -> None:
    response = refused(account, path, body)
    assert len(response["details"]) == 100
    assert response["message"] == f"{count - 100} more faults are not listed"


def test_unknown_ids_of_a_list_are_named_up_to_100(account: Account) -> None:
    audience = account.live.post("/audiences", json={"name": "A", "type": "STATIC"}).json()["id"]
    response = refused(account, f"/audiences/{audience}/members", {"consumerIds": [str(n) for n in range(10_000)]})
    assert [fault["field"] for fault in response["details"]] == [f"consumerIds[{index}]" for index in range(100)]
    assert response["message"] == "9900 more faults are not listed"


def test_unknown_parameters_are_named_up_to_100(account: Account) -> None:
    response = account.live.get("/consumers?" + "&".join(f"k{number}=1" for number in range(150)))
    assert (response.status_code, len(response.json()["details"])) == (400, 100)
    assert response.json()["message"] == "50 more faults are not listed"


def test_faults_do_not_repeat_long_texts_of_the_request(account: Account) -> None:
    response = refused(account, "/consumers/batch", [{"x" * 100_000: 1}] * 100)
    assert "message" not in response
    assert {len(fault["field"]) for fault in response["details"]} == {500}


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_large_response_is_sent_whole(account: Account, encoding: str) -> None:
    batch = [{"externalId": str(number), "metadata": {"text": "x" * 16_000}} for number in range(40)]
    headers = JSON | {"Accept-Encoding": encoding}
    response = account.live.post("/consumers/batch", content=msgspec.json.encode(batch), headers=headers)
    assert response.status_code == 201
    assert [row["externalId"] for row in response.json()] == [row["externalId"] for row in batch]
    if encoding == "gzip":
        assert (response.headers["content-encoding"], "content-length" in response.headers) == ("gzip", False)
    else:
        assert int(response.headers["content-length"]) == len(response.content)


def test_bodies_wait_for_room_and_are_all_answered(account: Account) -> None:
    """More than fits into a process at once; several are as large as allowed."""
    largest = b" " * (LIST - 2) + b"[]"
    with ThreadPoolExecutor(12) as pool:
        sent = pool.map(
            lambda client: client.post("/consumers/batch", content=largest, headers=JSON).status_code,
            [account.live, account.test] * 6,
        )
        assert set(sent) == {201}
