"""The framework's request, with the type this API uses it as."""

from typing import Any, TypeAlias

from litestar import Request

AnyRequest: TypeAlias = Request[Any, Any, Any]


def request_id_of(request: AnyRequest) -> str | None:
    """Return the id that `api/edge.py` gave the request; None if the request failed before that."""
    request_id: str | None = request.scope["state"].get("request_id")
    return request_id
