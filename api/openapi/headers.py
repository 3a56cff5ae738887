"""The headers of requests and answers, as the OpenAPI document tells them (contract.md §1)."""

from http import HTTPStatus
from typing import Any

from api.openapi.endpoints import Endpoint

TEXT = {"type": "string"}
KEY = {"type": "string", "minLength": 1, "maxLength": 255}
COUNT = {"type": "integer", "minimum": 0}


def _header(description: str, schema: dict[str, Any], example: Any, **more: Any) -> dict[str, Any]:
    return {"description": description, "schema": schema, "example": example, **more}


def _parameter(name: str, description: str, schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, **_header(description, schema, example)}


ANSWER = {
    "X-Request-Id": _header(
        "The request's own id, if it has a sane one; else a new one.",
        {"type": "string", "pattern": r"^[A-Za-z0-9._:\-]{1,128}$"},
        "req_01JBK3Q8X5W5V0B6T1R2M3N4P5",
        required=True,
    ),
    "X-RateLimit-Limit": _header("Requests a minute. Absent where there is no limit.", COUNT, 1000),
    "X-RateLimit-Remaining": _header("What remains of them.", COUNT, 999),
    "X-RateLimit-Reset": _header("When a new minute begins, in Unix seconds.", COUNT, 1730455260),
    "Retry-After": _header("Seconds to wait before trying again.", COUNT, 30),
    "WWW-Authenticate": _header("The scheme a key is sent with.", TEXT, "Bearer", required=True),
    "ETag": _header("The version of the consumer; of more than one row, a weak digest.", TEXT, '"1048576"'),
    "Consistency-Token": _header("Stands for this write: give it to a read that must contain it.", TEXT, "1-78340"),
    "Index-State": _header(
        "With `Prefer: wait`: whether this write is searchable.", {"enum": ["searchable", "pending"]}, "searchable"
    ),
    "Index-Stale": _header("The write of the `Consistency-Token` is not in this answer.", {"const": "true"}, "true"),
    "Index-Lag-Ms": _header(
        "The age of the oldest change that is not searchable yet, in milliseconds; 0 if there is none.", COUNT, 0
    ),
    "Preference-Applied": _header("What was heeded of `Prefer`.", TEXT, "wait=2"),
    "Idempotent-Replayed": _header(
        "The outcome of an earlier request with the same `Idempotency-Key`.", {"const": "true"}, "true"
    ),
}
REQUEST = {
    "Consistency-Token": _parameter(
        "Consistency-Token",
        "A write the answer must contain: waits until it is in the index, 2 seconds unless `Prefer: wait` says so.",
        {"type": "string", "pattern": "^1-(0|[1-9][0-9]{0,17})$"},
        "1-78340",
    ),
    "Prefer": _parameter(
        "Prefer",
        "`wait=n`, 0 to 10 seconds. With a token, `handling=strict` answers 503 rather than without that write.",
        TEXT,
        "wait=2",
    ),
    "Idempotency-Key": _parameter(
        "Idempotency-Key", "The first success with a key is replayed for 24 hours.", KEY, "order-17850-paid"
    ),
    "X-Idempotency-Key": _parameter("X-Idempotency-Key", "The same, by another name.", KEY, "order-17850-paid"),
    "If-Match": _parameter("If-Match", "Entity tags, or `*`: 412 if none is the consumer's.", TEXT, '"1048576"'),
    "If-None-Match": _parameter("If-None-Match", "Entity tags: 304 if one is the consumer's.", TEXT, '"1048576"'),
}
COMPONENTS: dict[str, Any] = {
    "headers": ANSWER,
    "parameters": REQUEST,
    "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "`sk_live_…` or `sk_test_…`"}},
}


def request_headers(endpoint: Endpoint) -> list[dict[str, Any]]:
    """The headers an endpoint heeds, apart from those of every HTTP request."""
    names = []
    if endpoint.is_authenticated and endpoint.method == "POST":
        names += ["Idempotency-Key", "X-Idempotency-Key"]
    if endpoint.is_of_consumer and endpoint.has_path_parameter:
        names += ["If-None-Match" if endpoint.method == "GET" else "If-Match"]
    if endpoint.is_from_index:
        names += ["Consistency-Token", "Prefer"]
    if endpoint.is_write:
        names += ["Prefer"]
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def answer_headers(endpoint: Endpoint, status: HTTPStatus) -> dict[str, Any]:
    """The headers an endpoint's answer may have."""
    names = ["X-Request-Id"]
    if endpoint.is_authenticated and status != HTTPStatus.UNAUTHORIZED:
        names += ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
    if status == HTTPStatus.UNAUTHORIZED:
        names += ["WWW-Authenticate"]
    if endpoint.is_of_consumer and endpoint.method != "DELETE" and status < HTTPStatus.BAD_REQUEST:
        names += ["ETag"]
    if status in {HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        names += ["Retry-After"]
    if endpoint.is_write and status < HTTPStatus.BAD_REQUEST:
        names += ["Index-State", "Preference-Applied"]
        names += ["Consistency-Token"] + ["Idempotent-Replayed"] * (endpoint.method == "POST")
    if endpoint.is_from_index and status == HTTPStatus.OK:
        names += ["Index-Lag-Ms", "Index-Stale", "Preference-Applied"]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
