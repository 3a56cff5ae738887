"""The outermost layer of the application, for every response, including 404 and 405.

Each request gets an id, a log line and a place in the metrics; each response gets the headers `X-Request-Id`,
`X-Content-Type-Options`, `Cache-Control` and `X-RateLimit-…`. Requests that the server could not parse, paths that are
not canonical, and paths of the other port are answered here.
"""

import re
import time
from http import HTTPStatus
from typing import cast

import structlog
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from ulid import ULID

from api.auth import Caller
from api.bodies import RequestBody, too_slow
from api.error_codes import ErrorCode
from api.errors import SENTENCES, Problem, encoded
from api.metrics import Metrics

log = structlog.get_logger()

VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
CLIENT_GONE = 499
"""The status in the log and the metrics if the client disconnected before the end of the body, or before a response."""
REFUSAL = "refusal"
"""The key in the scope's state for the status of a request that the server could not parse."""
OPERATIONS = "is_for_operators"
"""The key in the scope's state for whether the request came to METRICS_PORT."""
AT_END = "at_end"
"""The key in the scope's state for a function that is called when the request has ended."""
NOT_CANONICAL = re.compile(rb"//|/\.\.?(?:/|$)|%(?:2[DdEeFf]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])")
"""An empty or dot segment, or an encoded character that needs no encoding (RFC 3986, section 6.2.2), or `%2F`.

Such a path could name a resource in a way that a rule of a proxy does not foresee.
"""
IS_HEAD = "is_head"
"""The key in the scope's state for whether the method is HEAD: a large body need not be read."""
PROBES = frozenset({"/health/live", "/health/ready", "/metrics"})
"""Routes whose requests are logged at the level debug: each balancer sends one every few seconds."""
SAFE_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
"""Browsers must not guess a content type, and caches must not keep personal data (contract.md §1)."""


def edge(app: ASGIApp, metrics: Metrics, operations_port: int) -> ASGIApp:
    """Wrap an application in this layer.

    Args:
        app: the application.
        metrics: counts the requests.
        operations_port: the port that serves only `/metrics` and `/health/…`.
    """

    async def serve(any_scope: Scope, receive: Receive, send: Send) -> None:
        if any_scope["type"] != "http":  # type: ignore[comparison-overlap]  # also called for the lifespan
            await app(any_scope, receive, send)
            return
        scope = cast("HTTPScope", any_scope)
        method = scope["method"]
        if method == "HEAD":
            scope = cast("HTTPScope", {**scope, "method": "GET"})  # the server leaves out the body of the response
        started, status, body = time.perf_counter(), CLIENT_GONE, RequestBody(scope, receive)
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"], state[IS_HEAD] = request_id, method == "HEAD"
        state[OPERATIONS] = scope["server"] is not None and scope["server"][1] == operations_port

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, body.is_answered = message["status"], True
                window = state.get("window")
                limits = window.headers() if window else []
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    *SAFE_HEADERS,
                    *limits,
                ]
            await send(message)

        try:
            if problem := _refusal(scope):
                await _send(problem, request_id, send_with_headers)
            else:
                await app(scope, body.receive, send_with_headers)
        finally:
            body.close()
            if at_end := state.get(AT_END):
                at_end()
            seconds = time.perf_counter() - started
            _record(scope, method, metrics, CLIENT_GONE if body.failed else status, seconds)

    return serve


def _refusal(scope: HTTPScope) -> Problem | None:
    """Return the error for a request that does not reach the application."""
    if status := scope["state"].get(REFUSAL):
        if status == HTTPStatus.REQUEST_TIMEOUT:
            return too_slow()
        if status == HTTPStatus.BAD_REQUEST:
            message = "The request is not valid HTTP/1.1"
            return Problem(status, "Malformed request", code=ErrorCode.MALFORMED_REQUEST, message=message)
        return Problem(status, SENTENCES[status])
    path = scope["path"]
    is_of_operators = path == "/metrics" or path.startswith("/health/")
    is_offered = is_of_operators if scope["state"][OPERATIONS] else path.rstrip("/") != "/metrics"
    if is_offered and not NOT_CANONICAL.search(scope["raw_path"]):
        return None
    return Problem(HTTPStatus.NOT_FOUND, SENTENCES[HTTPStatus.NOT_FOUND])


async def _send(problem: Problem, request_id: str, send: Send) -> None:
    """Send an error with its envelope."""
    content = encoded(problem, request_id)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def _request_id(scope: HTTPScope) -> str:
    """Return the id sent by the client if valid, otherwise a new id."""
    received = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
    return received if VALID_REQUEST_ID.fullmatch(received) else f"req_{ULID()}"


def _record(scope: HTTPScope, method: str, metrics: Metrics, status: int, seconds: float) -> None:
    requester, window = scope.get("auth"), scope["state"].get("window")
    caller = requester if isinstance(requester, Caller) else None
    route = scope.get("path_template")
    if window and window.exceeded:
        metrics.limited(window.category)
    metrics.request(method, route, status, seconds)
    # An outage fails every request: its lines are counted with the other warnings (infra/repeated_lines.py).
    level = "debug" if route in PROBES else "warning" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "info"
    getattr(log, level)(
        "request",
        request_id=scope["state"]["request_id"],
        key=scope["state"].get("key_id"),
        organization=caller and caller.organization_id,
        environment=caller and caller.mode,
        method=method[:16],
        route=route,
        status=status,
        milliseconds=round(seconds * 1000, 1),
    )
