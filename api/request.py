"""The request of the framework, with the type used throughout this API."""

from typing import Any, TypeAlias

from litestar import Request

AnyRequest: TypeAlias = Request[Any, Any, Any]


def request_id_of(request: AnyRequest) -> str | None:
    """Return the id given to the request by `api/edge.py`; None if the request failed before."""
    request_id: str | None = request.scope["state"].get("request_id")
    return request_id
