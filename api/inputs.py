"""The input of a request, as dependencies of the handlers: `payload` is the body, `parameters` the query.

Both are read as the type of the handler's parameter with the same name. Input with faults is refused with 400. Only a
`payload` declared as a draft (`api/drafts.py`) is passed to the handler together with the faults.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, cast, get_args, get_origin
from urllib.parse import parse_qsl

from api.auth import Requester, caller_of, requester_of
from api.bodies import WAITING_BYTES
from api.drafts import BatchDraft, ObjectDraft
from api.error_codes import ErrorCode
from api.errors import VALIDATION_FAILED, Fault, Problem
from api.pages import PageParameters
from api.parsing import invalid_json
from api.request import AnyRequest
from api.route_options import options_of
from api.scopes import authorize_fields
from api.turns import Turns
from api.unknown_names import unknown
from api.validation import Checker, Input, has_field, list_names


async def payload(request: AnyRequest) -> Any:
    """Read the body.

    Raises:
        Problem: 400 if the body is not valid JSON, or has faults; 403 if a field requires a further scope; 415 for
            another content type.
    """
    body = await request.body()
    if not body and options_of(request.route_handler).body_is_optional:
        body = b"{}"
    if not body:
        raise invalid_json("The body is empty: send a JSON object, such as {}")
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        message = f"The Content-Type {content_type[:100]!r} is not supported: send JSON"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json", message=message)
    turns: Turns = request.app.state.turns
    waits = len(body) > WAITING_BYTES
    draft, checker = get_origin(declared := _declared_type(request, "payload")), Checker(requester_of(request))
    options = options_of(request.route_handler)
    if draft is BatchDraft:
        assert options.batch_key, "a route with a batch names its key"
        items = await turns.run(checker.check_batch(body, options.batch_key, *get_args(declared)), waits=waits)
        _authorize_fields(request, items)
        return BatchDraft(items, checker.faults, checker.item_faults)
    struct: Any = get_args(declared)[0] if draft else declared
    steps = checker.check_ids(body, options.ids_key, struct) if options.ids_key else checker.check_body(body, struct)
    value = await turns.run(steps, waits=waits)
    _authorize_fields(request, [value])
    if value is None or (checker.faults and not draft):
        raise Problem(HTTPStatus.BAD_REQUEST, VALIDATION_FAILED, details=checker.faults)
    return ObjectDraft([value], checker.faults, {0: checker.faults} if checker.faults else {}) if draft else value


def parameters(request: AnyRequest) -> Any:
    """Read the query.

    Raises:
        Problem: 400 with all faults: unknown parameters, duplicates, bad values; 403 if a parameter requires a further
            scope.
    """
    # Without authentication there is no requester, and none of the parameters has a rule or a scope that needs one.
    checker = Checker(cast("Requester", request.scope.get("auth")), is_query=True)
    struct = _declared_type(request, "parameters")
    lists = list_names(struct)
    raw: dict[str, str] = {}
    query = request.scope["query_string"].decode("utf-8", "surrogateescape")
    for encoded, text in parse_qsl(query, keep_blank_values=True, errors="surrogateescape"):
        name = encoded.encode("utf-8", "replace").decode()
        if name in raw and name not in lists:
            checker.faults.append(Fault(name, "Duplicate parameter", ErrorCode.DUPLICATE))
        if "\0" in text:
            checker.faults.append(Fault(name, "NUL characters are not allowed"))
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            checker.faults.append(Fault(name, "Must be percent-encoded UTF-8"))
        if not text and has_field(struct, name):
            continue  # an empty parameter counts as omitted
        raw[name] = f"{raw[name]},{text}" if name in raw and name in lists else text
    value: Any = checker.check_object(raw, struct)
    _authorize_fields(request, [value])
    if checker.faults:
        raise Problem(HTTPStatus.BAD_REQUEST, VALIDATION_FAILED, details=checker.faults)
    if isinstance(value, PageParameters):
        value = value.continued(caller_of(request).seal)
        # A cursor may hold a parameter that requires a scope.
        _authorize_fields(request, [value])
    return value


def refuse_parameters(request: AnyRequest) -> None:
    """Refuse a query of a request to a route without parameters: most likely the client expects an effect.

    Raises:
        Problem: 400.
    """
    if not request.scope["query_string"] or "parameters" in request.route_handler.parsed_fn_signature.parameters:
        return
    names = dict.fromkeys(
        name for name, _ in parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    )
    faults = [Fault(name, unknown("parameter", name, ()), ErrorCode.UNKNOWN_PARAMETER) for name in names]
    raise Problem(HTTPStatus.BAD_REQUEST, VALIDATION_FAILED, details=faults)


def _authorize_fields(request: AnyRequest, values: Iterable[Input | None]) -> None:
    for value in values:
        if value is not None and value.field_scopes:
            authorize_fields(request, value, value.field_scopes)


def _declared_type(request: AnyRequest, parameter: str) -> Any:
    return request.route_handler.parsed_fn_signature.parameters[parameter].annotation
