"""The outermost layer of the application, for every response, including 404 and 405.

Each request gets an id, a log line and a place in the metrics; each response gets the headers `X-Request-Id`,
`X-Content-Type-Options`, `Cache-Control` and `X-RateLimit-…`.
"""

import re
import time
from typing import cast

import structlog
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from ulid import ULID

from api.auth import Caller
from api.bodies import RequestBody
from api.metrics import Metrics

log = structlog.get_logger()

VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
CLIENT_GONE = 499
"""The status in the log and the metrics if the client disconnected before the end of the body, or before a response."""
SAFE_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
"""Browsers must not guess a content type, and caches must not keep personal data (contract.md §1)."""


def edge(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    """Wrap an application in this layer."""

    async def serve(any_scope: Scope, receive: Receive, send: Send) -> None:
        if any_scope["type"] != "http":  # type: ignore[comparison-overlap]  # also called for the lifespan
            await app(any_scope, receive, send)
            return
        scope = cast("HTTPScope", any_scope)
        started, status, body = time.perf_counter(), CLIENT_GONE, RequestBody(scope, receive)
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

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
            await app(scope, body.receive, send_with_headers)
        finally:
            body.close()
            _record(scope, metrics, CLIENT_GONE if body.failed else status, time.perf_counter() - started)

    return serve


def _request_id(scope: HTTPScope) -> str:
    """Return the id sent by the client if valid, otherwise a new id."""
    received = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
    return received if VALID_REQUEST_ID.fullmatch(received) else f"req_{ULID()}"


def _record(scope: HTTPScope, metrics: Metrics, status: int, seconds: float) -> None:
    requester, window = scope.get("auth"), scope["state"].get("window")
    caller = requester if isinstance(requester, Caller) else None
    method, route = scope["method"], scope.get("path_template")
    if window and window.exceeded:
        metrics.limited(window.category)
    metrics.request(method, route, status, seconds)
    log.info(
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
