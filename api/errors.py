"""The few errors of the API, each with its status, and how every failure becomes the contract's envelope."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException
from opensearchpy.exceptions import OpenSearchException
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from infra.logs import error_kind

log = structlog.get_logger()

RETRY_AFTER_SECONDS = 2


class Fault(msgspec.Struct):
    """One thing wrong with a request. `field` is a body's field (`[3].email` in a batch) or a parameter's name."""

    field: str
    message: str


class ErrorBody(msgspec.Struct, rename="camel", omit_defaults=True):
    error: str
    message: str | None = None
    details: Sequence[Fault] = ()
    retry_after: int | None = None
    request_id: str | None = None


class Placed(NamedTuple):
    """A fault of one item of a batch."""

    place: int
    fault: Fault


class Problem(Exception):  # noqa: N818 (what the sender is told, not a failure of ours)
    """An answer other than success: raised anywhere below a route, rendered in one place."""

    def __init__(
        self,
        status: HTTPStatus,
        error: str,
        *,
        message: str | None = None,
        details: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.status, self.error, self.message, self.details = status, error, message, details
        self.headers = headers or {}


def invalid(*faults: Fault, error: str = "Validation failed") -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, error, details=faults)


def refuse(faults: Sequence[Placed], early: Sequence[Fault] = (), *, batch: bool) -> None:
    """Raise 400 if there are faults; in a batch each field is named with its item's place.

    If all of them say the same of something that exists already, that is the sentence of the whole.

    Args:
        faults: found in the database.
        early: found in the body by itself.
        batch: whether places are to be named.
    """
    named = [
        *early,
        *(Fault(f"[{place}].{fault.field}" if batch else fault.field, fault.message) for place, fault in faults),
    ]
    if named:
        exists = all(fault.message.endswith("already exists") for fault in named)
        raise invalid(*named, error=named[0].message if exists else "Validation failed")


def not_found(what: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"{what} not found")


def unavailable(what: str) -> Problem:
    """503: `what` is `Search` or `Database`."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"{what} unavailable",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


SENTENCES = {
    HTTPStatus.BAD_REQUEST: "Validation failed",
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.METHOD_NOT_ALLOWED: "Method not allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Request body too large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Content-Type must be application/json",
}


def render(request: Request[Any, Any, Any], problem: Problem) -> Response[ErrorBody]:
    body = ErrorBody(
        error=problem.error,
        message=problem.message,
        details=problem.details,
        retry_after=int(problem.headers["Retry-After"]) if problem.status == HTTPStatus.TOO_MANY_REQUESTS else None,
        request_id=request.scope["state"].get("request_id"),
    )
    return Response(body, status_code=problem.status, headers=dict(problem.headers), media_type=MediaType.JSON)


def from_framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[ErrorBody]:
    status = HTTPStatus(error.status_code)
    details: Sequence[Fault] = ()
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        if any(item.get("key") == "data" for item in error.extra):  # the one fault the framework finds by itself
            return render(request, Problem(status, "Invalid JSON", message="The body is empty"))
        details = [Fault(item.get("key", "body"), item["message"]) for item in error.extra]
    sentence = SENTENCES.get(status, status.phrase.capitalize())
    return render(request, Problem(status, sentence, details=details, headers=error.headers))


def from_database(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorBody]:
    log.error("database_failed", request_id=request.scope["state"].get("request_id"), reason=error_kind(error))
    if isinstance(error, DBAPIError) and not _is_unreachable(error):
        return from_bug(request, error)
    return render(request, unavailable("Database"))


def from_search(request: Request[Any, Any, Any], error: OpenSearchException) -> Response[ErrorBody]:
    log.error("search_failed", request_id=request.scope["state"].get("request_id"), reason=error_kind(error))
    return render(request, unavailable("Search"))


def from_bug(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorBody]:
    log.error("request_failed", request_id=request.scope["state"].get("request_id"), exc_info=error)
    return render(request, Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error"))


def _is_unreachable(error: DBAPIError) -> bool:
    """Whether the server is away, starting, stopping, full or busy, rather than the statement wrong."""
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state[:2] in {"08", "25", "40", "53", "55", "57", "58"}


HANDLERS: dict[Any, Any] = {
    Problem: render,
    HTTPException: from_framework,
    DBAPIError: from_database,
    PoolTimeoutError: from_database,
    OpenSearchException: from_search,
    Exception: from_bug,
}
