"""Errors of the API: each has a status, and all are rendered here as the envelope of contract.md §1."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import MediaType, Response
from litestar.exceptions import HTTPException
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from api.error_codes import CODES, TAKEN, ErrorCode
from api.request import AnyRequest, request_id_of
from infra.index.client import OpenSearchError
from infra.logs import error_kind

log = structlog.get_logger()

RETRY_AFTER_SECONDS = 2
TOO_MANY_REQUESTS = "Too many concurrent requests"
LOCK_NOT_GRANTED = "55P03"
"""PostgreSQL's error code of a lock that was not granted within `lock_timeout`."""
VALIDATION_FAILED = "Validation failed"
INVALID_CURSOR = "Invalid cursor: send `endCursor` or `startCursor` of a page unchanged"
MAX_FAULTS = 100
"""A response lists at most so many faults."""
UNLISTED = "{} more faults are not listed"
MAX_FAULT_TEXT = 500
"""Characters of a fault's field, and of its message."""


class Fault(msgspec.Struct):
    """A problem of a request. `field` is a field of the body (`[3].email` in a batch) or the name of a parameter."""

    field: str
    message: str
    code: ErrorCode = ErrorCode.INVALID_VALUE
    existing_id: str | None = None
    """The object that has the same value."""


class ItemFault(msgspec.Struct, frozen=True):
    """A fault in an item of a batch, or in the only object of a body (index 0)."""

    index: int
    fault: Fault

    def in_batch(self) -> Fault:
        """Return the fault with the item's index in its field."""
        return msgspec.structs.replace(self.fault, field=f"[{self.index}].{self.fault.field}")


class Faults:
    """The faults of a request: the first `MAX_FAULTS` are listed, all are counted.

    A request of 10 MiB can have a million faults. The response and the memory must not grow with their number.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.listed: list[Fault] = []
        self.count = 0
        self.extend(faults)

    def __bool__(self) -> bool:
        return self.count > 0

    def append(self, fault: Fault) -> None:
        self.count += 1
        if len(self.listed) < MAX_FAULTS:
            shortened = {"field": _shortened(fault.field), "message": _shortened(fault.message)}
            self.listed.append(msgspec.structs.replace(fault, **shortened))

    def extend(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            self.append(fault)

    def include(self, further: "Faults") -> None:
        """Add the faults of a part of the request."""
        self.extend(further.listed)
        self.count += further.count - len(further.listed)

    def joined(self, faults: Iterable[Fault]) -> "Faults":
        """Return new `Faults`: these, and further faults."""
        result = Faults(self.listed)
        result.count = self.count
        result.extend(faults)
        return result


def _shortened(text: str) -> str:
    """Shorten a text that may contain a value of the request."""
    return text if len(text) <= MAX_FAULT_TEXT else f"{text[: MAX_FAULT_TEXT - 1]}…"


class ErrorDetail(msgspec.Struct, rename="camel", omit_defaults=True):
    """A fault of a request."""

    field: str
    """A field of the body, such as `email` or, in a batch, `[3].email`; or the name of a parameter or header."""
    code: str
    """A stable name of the fault; the description of the API lists the codes."""
    message: str
    """A sentence: the fault, and the allowed values."""
    existing_id: str | None = None
    """The id of the object that has the value, if the value is taken. Absent if it is an item of the same request."""


class ErrorBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """An error."""

    error: str
    """A sentence. It may change: programs should look at the status and the codes."""
    code: str
    """A stable name of the error; the description of the API lists the codes."""
    message: str | None = None
    """Further information and advice."""
    details: Sequence[ErrorDetail] = ()
    """The faults of a request: at most 100. `message` says how many more there are."""
    retry_after: int | None = None
    """With status 429: seconds to wait before a retry, as in the header `Retry-After`."""
    request_id: str | None = None
    """The id of the request, as in the header `X-Request-Id`. Quote the id in a question to support."""


class Problem(Exception):  # noqa: N818 (a response to the sender, not a failure of the service)
    """An error response. Raised by any code below a route, and made a response by `render`."""

    def __init__(
        self,
        status: HTTPStatus,
        error: str,
        *,
        code: ErrorCode | None = None,
        message: str | None = None,
        details: Iterable[Fault] | Faults = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        faults = details if isinstance(details, Faults) else Faults(details)
        if message is None and faults.count > MAX_FAULTS:
            message = UNLISTED.format(faults.count - MAX_FAULTS)
        self.status, self.error, self.message, self.details = status, error, message, tuple(faults.listed)
        self.headers = headers or {}
        self.code = code or CODES[status]


def invalid(*faults: Fault) -> Problem:
    """Build the 400 for a request with faults."""
    return Problem(HTTPStatus.BAD_REQUEST, VALIDATION_FAILED, details=faults)


def refuse(faults: Iterable[Fault] | Faults) -> None:
    """Raise 400 if there are faults.

    If every fault is a value that is taken, the first becomes the top-level `error` and `code`.
    """
    faults = faults if isinstance(faults, Faults) else Faults(faults)
    if not faults:
        return
    first = faults.listed[0]
    if all(fault.code in TAKEN for fault in faults.listed):
        raise Problem(HTTPStatus.BAD_REQUEST, first.message, code=first.code, details=faults)
    raise Problem(HTTPStatus.BAD_REQUEST, VALIDATION_FAILED, details=faults)


def not_possible(error: str) -> Problem:
    """Build the 400 for a request that the kind of the object does not allow."""
    return Problem(HTTPStatus.BAD_REQUEST, error, code=ErrorCode.NOT_POSSIBLE)


def invalid_cursor(name: str = "after") -> Problem:
    """Build the 400 for a cursor that no list has issued."""
    return invalid(Fault(name, INVALID_CURSOR, ErrorCode.INVALID_CURSOR))


def not_found(resource: str) -> Problem:
    """Build the 404 for a resource, such as `Consumer`."""
    noun = resource.lower()
    message = (
        f"This environment has no {noun} with this id. Ids begin with {PREFIXES[resource]}; "
        "keys of live and of test see different data"
    )
    return Problem(HTTPStatus.NOT_FOUND, f"{resource} not found", code=ErrorCode(f"{noun}_not_found"), message=message)


def no_match(resource: str, code: ErrorCode) -> Problem:
    """Build the 404 of a lookup by a value, such as an external id."""
    message = f"No {resource.lower()} of this environment has this value; keys of live and of test see different data"
    return Problem(HTTPStatus.NOT_FOUND, f"{resource} not found", code=code, message=message)


def unavailable(server: str) -> Problem:
    """Build the 503 for a server: `Search` or `Database`."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"{server} unavailable",
        code=ErrorCode(f"{server.lower()}_unavailable"),
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


LIVE = "/api/v1/analytics/"
PATHS = "The paths of the API begin with /api/v1: /docs lists them"
LIVE_PATHS = (
    "Live questions have no such path: use consumers/_search, consumers/_count, consumers/_mapping, "
    "consumers/_field_caps, consumers/_search/point_in_time, or _search with a point in time"
)
PREFIXES = {"Consumer": "cons_", "Order": "ord_", "Audience": "aud_", "Export": "exp_"}
SENTENCES = {
    HTTPStatus.BAD_REQUEST: VALIDATION_FAILED,
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.METHOD_NOT_ALLOWED: "Method not allowed",
    HTTPStatus.REQUEST_TIMEOUT: "Request timeout",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Request body too large",
    HTTPStatus.REQUEST_URI_TOO_LONG: "URI too long",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "Request headers too large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Content-Type must be application/json",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "Range not satisfiable",
}


def detail(fault: Fault, field: str) -> ErrorDetail:
    """Return a fault as in responses."""
    return ErrorDetail(field, fault.code, fault.message, fault.existing_id)


def _body(problem: Problem, request_id: str | None) -> ErrorBody:
    return ErrorBody(
        error=problem.error,
        code=problem.code,
        message=problem.message,
        details=tuple(detail(fault, fault.field) for fault in problem.details),
        retry_after=int(problem.headers["Retry-After"]) if problem.status == HTTPStatus.TOO_MANY_REQUESTS else None,
        request_id=request_id,
    )


def encoded(problem: Problem, request_id: str) -> bytes:
    """Return the envelope of an error as JSON."""
    return msgspec.json.encode(_body(problem, request_id))


def render(request: AnyRequest, problem: Problem) -> Response[ErrorBody]:
    body = _body(problem, request_id_of(request))
    return Response(body, status_code=problem.status, headers=dict(problem.headers), media_type=MediaType.JSON)


def from_framework(request: AnyRequest, error: HTTPException) -> Response[ErrorBody]:
    """Answer an error of the framework, such as 404, 405 or 413."""
    status = HTTPStatus(error.status_code)
    sentence = SENTENCES.get(status, status.phrase.capitalize())
    headers, message = dict(error.headers or {}), None
    if methods := headers.get("allow"):
        headers["allow"] = allowed(methods.split(", "))
        change = ". Use PUT to change some fields of an object" if request.method == "PATCH" else ""
        message = f"This path has the methods {headers['allow']}{change}"
    elif status == HTTPStatus.NOT_FOUND:
        message = LIVE_PATHS if request.url.path.startswith(LIVE) else PATHS
    return render(request, Problem(status, sentence, message=message, headers=headers))


def allowed(methods: Iterable[str]) -> str:
    """Return the header `Allow` for the methods of a path: HEAD is answered wherever GET is (`api/edge.py`)."""
    return ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))


def from_database(request: AnyRequest, error: Exception) -> Response[ErrorBody]:
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == LOCK_NOT_GRANTED:
        log.info("lock_not_granted", request_id=request_id_of(request))
        return render(request, _locked())
    log.error("database_failed", request_id=request_id_of(request), reason=error_kind(error))
    if isinstance(error, DBAPIError) and not _is_unreachable(error):
        return from_bug(request, error)
    return render(request, unavailable("Database"))


def from_search(request: AnyRequest, error: OpenSearchError) -> Response[ErrorBody]:
    log.error("search_failed", request_id=request_id_of(request), reason=error_kind(error))
    return render(request, unavailable("Search"))


def from_bug(request: AnyRequest, error: Exception) -> Response[ErrorBody]:
    log.error("request_failed", request_id=request_id_of(request), exc_info=error)
    return render(request, Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error"))


def _locked() -> Problem:
    message = (
        "Other writes of the same objects took too long: nothing is stored, so repeat the request. Write an object in "
        "one request at a time"
    )
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        TOO_MANY_REQUESTS,
        code=ErrorCode.TOO_MANY_CONCURRENT_REQUESTS,
        message=message,
        headers=headers,
    )


def _is_unreachable(error: DBAPIError) -> bool:
    """Return whether the server is down, starting, stopping, full or busy; if not, the statement is wrong."""
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state[:2] in {"08", "25", "40", "53", "55", "57", "58"}


HANDLERS: dict[Any, Any] = {
    Problem: render,
    HTTPException: from_framework,
    DBAPIError: from_database,
    PoolTimeoutError: from_database,
    OpenSearchError: from_search,
    Exception: from_bug,
}
