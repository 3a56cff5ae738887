"""The codes of errors: names for programs, listed in the OpenAPI documents. Sentences may change, codes do not."""

from enum import StrEnum
from http import HTTPStatus
from typing import Self


class ErrorCode(StrEnum):
    """A code of a whole error or, where the meaning says so, of a single fault in `details`."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    # Errors.
    VALIDATION_FAILED = "validation_failed", "400. The request has faults: `details` names each."
    EMAIL_TAKEN = (
        "email_taken",
        "400, and a fault. Another consumer has this e-mail address: `existingId` names the consumer.",
    )
    EXTERNAL_ID_TAKEN = (
        "external_id_taken",
        "400, and a fault. Another consumer or order has this external id: `existingId` names the object.",
    )
    BATCH_TOO_LARGE = "batch_too_large", "400. The batch has more than 500 items: send several batches."
    INVALID_JSON = "invalid_json", "400. The body is not JSON in UTF-8, or repeats a key."
    MALFORMED_REQUEST = "malformed_request", "400. The request is not valid HTTP, or ends early."
    NOT_POSSIBLE = "not_possible", "400. The object does not allow this change: `error` says why."
    AUTHENTICATION_REQUIRED = (
        "authentication_required",
        "401. The key is absent, malformed, unknown, revoked or expired.",
    )
    SECRET_KEY_REQUIRED = "secret_key_required", "401. The key is a publishable key."
    FORBIDDEN = "forbidden", "403. The key lacks a scope, or is of another kind: `message` says which is needed."
    STORAGE_LIMIT_REACHED = "storage_limit_reached", "403. The environment stores as much as allowed."
    NOT_FOUND = "not_found", "404. The path does not exist."
    CONSUMER_NOT_FOUND = (
        "consumer_not_found",
        "404, and a fault. The environment has no such consumer.",
    )
    ORDER_NOT_FOUND = "order_not_found", "404. The environment has no such order."
    AUDIENCE_NOT_FOUND = "audience_not_found", "404. The environment has no such audience."
    EXPORT_NOT_FOUND = "export_not_found", "404. The environment has no such export, or the export has no such file."
    METHOD_NOT_ALLOWED = "method_not_allowed", "405. The path has other methods: the header `Allow` names them."
    REQUEST_TIMEOUT = "request_timeout", "408. The request arrived too slowly."
    CONFLICT = "conflict", "409. The state of the object does not allow this: `message` says why."
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused", "409. The `Idempotency-Key` belongs to another request."
    IDEMPOTENCY_KEY_IN_USE = (
        "idempotency_key_in_use",
        "409. A request with the `Idempotency-Key` is in progress: repeat this request later.",
    )
    TOO_MANY_EXPORTS = (
        "too_many_exports",
        "409. The environment has as many exports as allowed: delete one, or wait until one expires.",
    )
    CONSUMER_DELETED = (
        "consumer_deleted",
        "410. The stored response of this `Idempotency-Key` contained a consumer that was deleted.",
    )
    CHANGES_EXPIRED = (
        "changes_expired",
        "410. The changes after the cursor are no longer kept: list, then go on from a cursor taken before.",
    )
    PRECONDITION_FAILED = "precondition_failed", "412. The consumer has changed since the `ETag` in `If-Match`."
    BODY_TOO_LARGE = "body_too_large", "413. The body is larger than the endpoint allows."
    URI_TOO_LONG = "uri_too_long", "414. The path and the query are longer than 32 KiB."
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", "415. The body is not declared as JSON."
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable", "416. The `Range` begins behind the end of the file."
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded", "429. Too many requests in this minute: wait as `Retry-After` says."
    TOO_MANY_CONCURRENT_REQUESTS = (
        "too_many_concurrent_requests",
        "429. Too many requests of the environment run at the same time.",
    )
    HEADERS_TOO_LARGE = "headers_too_large", "431. The headers are larger than 32 KiB."
    INTERNAL_ERROR = "internal_error", "500. A fault of the service: quote the `requestId` to support."
    DATABASE_UNAVAILABLE = "database_unavailable", "503. Wait as `Retry-After` says, then retry."
    SEARCH_UNAVAILABLE = "search_unavailable", "503. Wait as `Retry-After` says, then retry."
    QUESTION_TOO_SLOW = "question_too_slow", "504. The live question took too long: ask for less, or use an export."
    EXPORTS_UNAVAILABLE = "exports_unavailable", "503. The store of the exports does not answer, or there is none."

    # Faults in `details`.
    REQUIRED = "required", "A fault. The field or parameter is missing."
    UNKNOWN_FIELD = "unknown_field", "A fault. The body has no such field: `message` names the fields."
    UNKNOWN_PARAMETER = (
        "unknown_parameter",
        "A fault. The endpoint has no such parameter: `message` names the parameters.",
    )
    DUPLICATE = "duplicate", "A fault. The parameter, id or value occurs twice in the request."
    INVALID_TYPE = "invalid_type", "A fault. The value has another type, such as a number in place of text."
    INVALID_CHOICE = "invalid_choice", "A fault. The value is not one of those listed in `message`."
    OUT_OF_RANGE = "out_of_range", "A fault. The number, or the number of items, is too small or too large."
    INVALID_LENGTH = "invalid_length", "A fault. The text is too short or too long."
    INVALID_VALUE = "invalid_value", "A fault. The value breaks a rule: `message` says which."
    INVALID_EMAIL = "invalid_email", "A fault. Not a valid e-mail address."
    INVALID_PHONE = "invalid_phone", "A fault. Not a phone number."
    INVALID_NAME = "invalid_name", "A fault. The name is empty, too long, or contains control characters."
    INVALID_EXTERNAL_ID = "invalid_external_id", "A fault. The external id is empty, too long, or has such characters."
    INVALID_METADATA = "invalid_metadata", "A fault. The metadata exceeds a limit: `message` says which."
    INVALID_AMOUNT = "invalid_amount", "A fault. Not a decimal number within the limits."
    INVALID_CURRENCY = "invalid_currency", "A fault. Not a currency code of ISO 4217."
    INVALID_TIME = "invalid_time", "A fault. Not a time in RFC 3339, and not a date."
    INVALID_CURSOR = "invalid_cursor", "A fault. The cursor is damaged, expired, or of another list."
    INVALID_TOKEN = "invalid_token", "A fault. Not a `Consistency-Token` of this environment."
    INVALID_FILTER = "invalid_filter", "A fault. The filter has an error at the position in `message`."
    NOT_ALLOWED_HERE = "not_allowed_here", "A fault. The live question says something that is not in the list."
    INVALID_RULE = "invalid_rule", "A fault. The rule makes no sense for its field."
    NOT_COMBINABLE = "not_combinable", "A fault. The field or parameter excludes another: send one of the two."
    NOT_CHANGEABLE = "not_changeable", "A fault. The field cannot change after creation."


TAKEN = {ErrorCode.EMAIL_TAKEN, ErrorCode.EXTERNAL_ID_TAKEN}
CODES = {
    HTTPStatus.BAD_REQUEST: ErrorCode.VALIDATION_FAILED,
    HTTPStatus.UNAUTHORIZED: ErrorCode.AUTHENTICATION_REQUIRED,
    HTTPStatus.FORBIDDEN: ErrorCode.FORBIDDEN,
    HTTPStatus.NOT_FOUND: ErrorCode.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: ErrorCode.METHOD_NOT_ALLOWED,
    HTTPStatus.REQUEST_TIMEOUT: ErrorCode.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT: ErrorCode.CONFLICT,
    HTTPStatus.GONE: ErrorCode.CONSUMER_DELETED,
    HTTPStatus.PRECONDITION_FAILED: ErrorCode.PRECONDITION_FAILED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ErrorCode.BODY_TOO_LARGE,
    HTTPStatus.REQUEST_URI_TOO_LONG: ErrorCode.URI_TOO_LONG,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: ErrorCode.RANGE_NOT_SATISFIABLE,
    HTTPStatus.TOO_MANY_REQUESTS: ErrorCode.RATE_LIMIT_EXCEEDED,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: ErrorCode.HEADERS_TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR: ErrorCode.INTERNAL_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE: ErrorCode.DATABASE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: ErrorCode.QUESTION_TOO_SLOW,
}
"""The code of an error by its status, unless the error has a code of its own."""
