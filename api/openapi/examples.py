"""Examples in the OpenAPI document.

The example of a type is the type's class attribute `example`; the examples of errors are in this module.
"""

from http import HTTPStatus
from typing import Any, get_args, get_origin

from api.error_codes import CODES, ErrorCode
from api.errors import SENTENCES
from api.scopes import ONLY_FOR_OPERATORS


def example_of(annotation: Any) -> Any:
    """Return the example of a type, or of a list of a type; None if there is none.

    A missing example fails a test rather than the document.
    """
    if get_origin(annotation) is list:
        [item] = get_args(annotation)
        example = example_of(item)
        return None if example is None else [example]
    return getattr(annotation, "example", None)


ERRORS: dict[HTTPStatus, dict[str, Any]] = {
    HTTPStatus.UNAUTHORIZED: {"error": "Authentication required"},
    HTTPStatus.FORBIDDEN: {"error": "Forbidden", "message": "This key lacks the scope write:consumers"},
    HTTPStatus.CONFLICT: {
        "error": "Conflict",
        "code": ErrorCode.IDEMPOTENCY_KEY_REUSED,
        "message": "This Idempotency-Key was used for another request: send a new key with each new request",
    },
    HTTPStatus.GONE: {
        "error": "Consumer deleted",
        "message": "The response of this Idempotency-Key contained a consumer that was deleted since: send a new write "
        "with another key",
    },
    HTTPStatus.PRECONDITION_FAILED: {
        "error": "Precondition failed",
        "message": 'The current ETag is "ARLtAZyWe9n9HYRNjSOCKWJs_aTG5sV6yQ": read the consumer again, and send the '
        "ETag with its quotes",
    },
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: {
        "error": "Range not satisfiable",
        "message": "The file has 52428800 bytes",
    },
    HTTPStatus.TOO_MANY_REQUESTS: {"error": "Rate limit exceeded", "retryAfter": 30},
    HTTPStatus.INTERNAL_SERVER_ERROR: {"error": "Internal server error"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"error": "Database unavailable"},
    HTTPStatus.GATEWAY_TIMEOUT: {
        "error": "Question too slow",
        "message": "The question took more than 10 seconds: ask for less, or use an export",
    },
}
EXPIRED = {
    "error": "Changes expired",
    "code": ErrorCode.CHANGES_EXPIRED,
    "message": "Changes are kept for 30 days: read the whole list again, and continue from a cursor that was taken "
    "before (from=now)",
}
FAULTS = [{"field": "email", "code": ErrorCode.INVALID_EMAIL, "message": "Invalid email format"}]


def error_example(status: HTTPStatus, resource: str, *, is_feed: bool = False) -> dict[str, Any]:
    """Return the example of an error.

    Args:
        status: of the response.
        resource: of the route, in the plural, as in the path.
        is_feed: whether the route is a feed of changes.
    """
    if is_feed and status == HTTPStatus.GONE:
        return EXPIRED
    code = {"code": CODES[status]}
    if status == HTTPStatus.NOT_FOUND and resource == "analytics":
        return {
            "error": "Not found",
            "code": ErrorCode.NOT_FOUND,
            "message": "The point in time has ended: make another",
        }
    if status == HTTPStatus.NOT_FOUND:
        noun = resource.removesuffix("s") if resource in {"consumers", "orders", "audiences", "exports"} else "consumer"
        return {"error": f"{noun.capitalize()} not found", "code": ErrorCode(f"{noun}_not_found")}
    if status == HTTPStatus.FORBIDDEN and resource == "ops":
        return code | ERRORS[status] | {"message": ONLY_FOR_OPERATORS}
    if status == HTTPStatus.BAD_REQUEST:
        return code | {"error": SENTENCES[status], "details": FAULTS}
    return code | (ERRORS.get(status) or {"error": SENTENCES[status]})
