"""The headers of requests and responses in the OpenAPI document (contract.md §1)."""

from http import HTTPStatus
from typing import Any

from api.openapi.endpoints import Endpoint

TEXT = {"type": "string"}
KEY = {"type": "string", "minLength": 1, "maxLength": 255}
ETAG = '"AXxaCbjIBnxIpKEdw3UaTu0xcwsHGfXQnw"'
TOKEN = "AW3T1hWQc9xdkodhU-pfsLjw6VdaZzyHUA"  # noqa: S105 (an example)
TRUE = {"type": "string", "const": "true"}
COUNT = {"type": "integer", "minimum": 0}


def _header(description: str, schema: dict[str, Any], example: Any, **members: Any) -> dict[str, Any]:
    return {"description": description, "schema": schema, "example": example, **members}


def _parameter(name: str, description: str, schema: dict[str, Any], example: str) -> dict[str, Any]:
    """Return a header of requests. The example is in the text, because Swagger UI sends an example by itself."""
    text = f"{description} Example: `{example}`."
    return {"name": name, "in": "header", "required": False, "description": text, "schema": schema}


ANSWER = {
    "X-Request-Id": _header(
        "The id that the request sent in this header, if that is valid; otherwise a new id.",
        {"type": "string", "pattern": r"^[A-Za-z0-9._:\-]{1,128}$"},
        "req_01JBK3Q8X5W5V0B6T1R2M3N4P5",
        required=True,
    ),
    "X-Content-Type-Options": _header(
        "Browsers must not guess another content type.",
        {"type": "string", "const": "nosniff"},
        "nosniff",
        required=True,
    ),
    "Cache-Control": _header(
        "No cache may keep the response.", {"type": "string", "const": "no-store"}, "no-store", required=True
    ),
    "Location": _header("The path of the new resource.", TEXT, "/api/v1/consumers/cons_01JBK3Q8X5W5V0B6T1R2M3N4P5"),
    "X-RateLimit-Limit": _header("Requests allowed a minute. Absent if there is no limit.", COUNT, 1000),
    "X-RateLimit-Remaining": _header("Requests that remain in this minute.", COUNT, 999),
    "X-RateLimit-Reset": _header("Start of the next minute, in Unix seconds.", COUNT, 1730455260),
    "Retry-After": _header("Seconds to wait before a retry.", COUNT, 30),
    "WWW-Authenticate": _header("The scheme for the `Authorization` header.", TEXT, "Bearer", required=True),
    "ETag": _header(
        "The version of the consumer; with `include`, a weak digest of the response. Of a file, its SHA-256.",
        TEXT,
        ETAG,
    ),
    "Consistency-Token": _header(
        "Identifies this write. Send it with a read that must contain the write.", TEXT, TOKEN
    ),
    "Index-State": _header(
        "With `Prefer: wait`: whether the write is searchable.",
        {"type": "string", "enum": ["searchable", "pending"]},
        "searchable",
    ),
    "Accept-Ranges": _header("A range of the file can be read.", {"type": "string", "const": "bytes"}, "bytes"),
    "Content-Range": _header("The range in the response, and the size of the file.", TEXT, "bytes 0-1023/52428800"),
    "Content-Disposition": _header("The name of the file.", TEXT, 'attachment; filename="orders-0001.parquet"'),
    "Index-Stale": _header(
        "The response does not contain the write of the `Consistency-Token`.",
        TRUE,
        "true",
    ),
    "Index-Lag-Ms": _header(
        "Age of the oldest change that is not searchable yet, in milliseconds; 0 if there is none.", COUNT, 0
    ),
    "Preference-Applied": _header("The preferences in `Prefer` that were applied.", TEXT, "wait=2"),
    "Idempotent-Replayed": _header(
        "The response is that of an earlier request with the same `Idempotency-Key`.",
        TRUE,
        "true",
    ),
}
REQUEST = {
    "Consistency-Token": _parameter(
        "Consistency-Token",
        "The token of a write that the response must contain; of several, separated by commas, the latest. Waits up to "
        "2 seconds for that write to be searchable; `Prefer: wait` changes the time.",
        TEXT,
        TOKEN,
    ),
    "Prefer": _parameter(
        "Prefer",
        "`wait=n`: wait up to n seconds, 0 to 10. `handling=strict`: answer 503 unless the write of the "
        "`Consistency-Token` is searchable by then.",
        TEXT,
        "wait=2",
    ),
    "PreferForChanges": _parameter(
        "Prefer", "`wait=n`: wait up to n seconds, 0 to 30, for the first change.", TEXT, "wait=30"
    ),
    "Idempotency-Key": _parameter(
        "Idempotency-Key",
        "Makes retries safe: the first successful response with this key is replayed for 24 hours. Another method, "
        "path, query or body with the key is a 409. After the deletion of a consumer in the response, a retry is "
        "answered 410, and writes nothing.",
        KEY,
        "order-17850-paid",
    ),
    "If-Match": _parameter("If-Match", "Entity tags, or `*`. 412 if none matches the consumer's `ETag`.", TEXT, ETAG),
    "Range": _parameter(
        "Range",
        "A range of bytes of the file, to continue a download. Several are ignored.",
        TEXT,
        "bytes=1024-",
    ),
    "If-Range": _parameter(
        "If-Range", "The `ETag` of the file that the `Range` belongs to. Of another file, all is sent.", TEXT, ETAG
    ),
    "If-None-Match": _parameter(
        "If-None-Match", "Entity tags. 304 if one matches the `ETag` of the response.", TEXT, ETAG
    ),
}
COMPONENTS: dict[str, Any] = {
    "headers": ANSWER,
    "parameters": REQUEST,
    "securitySchemes": {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "The secret key of an environment, `sk_live_…` or `sk_test_…`.",
        },
        "operatorKey": {
            "type": "http",
            "scheme": "bearer",
            "description": "The key of an operator of this service, `op_…`. It opens `/api/v1/ops` alone.",
        },
    },
}


def request_headers(endpoint: Endpoint) -> list[dict[str, Any]]:
    """Return references to the request headers of an endpoint."""
    return [{"$ref": f"#/components/parameters/{name}"} for name in request_header_names(endpoint)]


def request_header_names(endpoint: Endpoint) -> list[str]:
    """Return the request headers of an endpoint, without the usual headers of HTTP."""
    names = []
    if endpoint.takes_key:
        names += ["Idempotency-Key"]
    if endpoint.is_of_consumer and (endpoint.path_names or endpoint.is_lookup):
        names += ["If-None-Match" if endpoint.method == "GET" else "If-Match"]
    if endpoint.is_download:
        names += ["Range", "If-Range", "If-None-Match"]
    if endpoint.is_from_index:
        names += ["Consistency-Token", "Prefer"]
    if endpoint.is_write and not endpoint.is_for_operators:
        names += ["Prefer"]
    if endpoint.is_feed:
        names += ["PreferForChanges"]
    return names


def answer_headers(endpoint: Endpoint, status: HTTPStatus) -> dict[str, Any]:
    """Return the possible headers of an endpoint's response."""
    names = ["X-Request-Id", "X-Content-Type-Options", "Cache-Control"]
    if endpoint.is_authenticated and status != HTTPStatus.UNAUTHORIZED:
        names += ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
    if status == HTTPStatus.UNAUTHORIZED:
        names += ["WWW-Authenticate"]
    if endpoint.is_of_consumer and endpoint.method != "DELETE" and status < HTTPStatus.BAD_REQUEST:
        names += ["ETag"]
    names += _download_headers(endpoint, status)
    if _creates(endpoint, status):
        names += ["Location"]
    if status in {HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        names += ["Retry-After"]
    if endpoint.is_write and status < HTTPStatus.BAD_REQUEST:
        if not endpoint.is_for_operators:
            names += ["Index-State", "Preference-Applied", "Consistency-Token"]
        names += ["Idempotent-Replayed"] * endpoint.takes_key
    if endpoint.is_from_index and status == HTTPStatus.OK:
        names += ["Index-Lag-Ms", "Index-Stale", "Preference-Applied"]
    if endpoint.is_feed and status == HTTPStatus.OK:
        names += ["Preference-Applied"]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _download_headers(endpoint: Endpoint, status: HTTPStatus) -> list[str]:
    if not endpoint.is_download:
        return []
    names = ["ETag", "Accept-Ranges"] * (status < HTTPStatus.BAD_REQUEST)
    names += ["Content-Disposition"] * (status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})
    names += ["Content-Range"] * (status in {HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE})
    return names


def _creates(endpoint: Endpoint, status: HTTPStatus) -> bool:
    """Return whether the response names the path of a new resource. A batch has no path of its own."""
    is_single = endpoint.options is not None and not endpoint.options.batch_key
    is_accepted = status == HTTPStatus.ACCEPTED and not endpoint.is_for_operators
    return is_single and (status == HTTPStatus.CREATED or is_accepted)
