"""The OpenAPI document, from the routes and their types.

What a route accepts and answers stands in its signature, and what a type allows in the type; here is only what the
conventions of contract.md §1 add to every route of a kind: headers, errors, authentication.
"""

from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from inspect import cleandoc
from typing import Any

import msgspec
from litestar.routes import BaseRoute, HTTPRoute

from api.errors import RETRY_AFTER_SECONDS, ErrorBody
from api.openapi.endpoints import Endpoint
from api.openapi.examples import EXAMPLES, error_example
from api.openapi.headers import COMPONENTS, answer_headers, request_headers
from api.validation import MAX_BATCH, Input

JSON = "application/json"
SCHEMAS = "#/components/schemas/{name}"
DESCRIPTION = f"""\
Every error is the same envelope, and every answer has an `X-Request-Id`. What no route answers is a 404, an unknown
method a 405 with `Allow`. After a 503, try again in {RETRY_AFTER_SECONDS} seconds, as `Retry-After` says."""

Document = dict[str, Any]


def document(routes: Sequence[BaseRoute]) -> Document:
    """The document of an application's routes."""
    endpoints = list(_endpoints(routes))
    types = [kind for endpoint in endpoints for kind in (endpoint.parameters, endpoint.body, endpoint.answer) if kind]
    types += [kind for endpoint in endpoints for kind in _further(endpoint).values()]
    unique = list(dict.fromkeys([ErrorBody, *types]))
    schemas, components = msgspec.json.schema_components(unique, ref_template=SCHEMAS)
    components = _corrected(components)
    schema_of = dict(zip(unique, schemas, strict=True))
    for kind in _bodies(Input):
        if kind.__name__ in components:
            components[kind.__name__] |= _closed(kind, components[kind.__name__])
    paths: Document = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, schema_of.__getitem__, components)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    asked = {endpoint.parameters.__name__ for endpoint in endpoints if endpoint.parameters}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Consumers API", "version": "1", "description": DESCRIPTION},
        "paths": paths,
        "components": COMPONENTS | {"schemas": {name: components[name] for name in components if name not in asked}},
    }


def _endpoints(routes: Sequence[BaseRoute]) -> Iterator[Endpoint]:
    for route in routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if handler.resolve_include_in_schema():
                    for method in sorted(handler.http_methods):
                        yield Endpoint(route.path_format, method, handler)


def _further(endpoint: Endpoint) -> dict[int, Any]:
    """What the endpoint answers with other statuses, apart from errors."""
    return {status: spec.data_container for status, spec in (endpoint.handler.responses or {}).items()}


def _bodies(parent: type[Input]) -> Iterator[type[Input]]:
    for kind in parent.__subclasses__():
        yield kind
        yield from _bodies(kind)


def _corrected(schema: Any) -> Any:
    """What msgspec says of types, as this API has it: a Decimal is a number; in a request, with a pattern for the text,
    it may be either.
    """
    if isinstance(schema, list):
        return [_corrected(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _corrected(part) for name, part in schema.items()}
    if schema.get("format") == "decimal":
        del schema["format"]
        schema["type"] = ["number", "string"] if "pattern" in schema else "number"
    if isinstance(schema.get("description"), str):
        schema["description"] = cleandoc(schema["description"])
    return schema


def _closed(kind: type[Input], schema: Document) -> Document:
    """Nothing else may be said, but what an answer tells may be sent back."""
    ignored = {name: {"description": "Read-only: ignored."} for name in sorted(kind.read_only)}
    return {"properties": ignored | schema["properties"], "additionalProperties": False}


def _operation(endpoint: Endpoint, schema_of: Callable[[Any], Document], components: Document) -> Document:
    handler = endpoint.handler
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _path_names(endpoint)
    ]
    if endpoint.parameters:
        parameters += query_parameters(components[endpoint.parameters.__name__])
    parameters += request_headers(endpoint)
    operation: Document = {
        "operationId": endpoint.name,
        "summary": handler.summary,
        "tags": sorted(handler.resolve_tags()),
        "parameters": parameters,
        "responses": _responses(endpoint, schema_of),
    }
    if options := endpoint.options:
        operation["security"] = [{"key": []}]
        operation["description"] = f"Needs the scope `{options.scope}`. Counts as {options.limit}."
    if endpoint.body:
        operation["requestBody"] = {"required": True, "content": {JSON: _request(endpoint, schema_of)}}
    return operation


def _path_names(endpoint: Endpoint) -> list[str]:
    return [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]


def query_parameters(schema: Document) -> list[Document]:
    """The parameters of a query, from the schema of its struct."""
    found = []
    for name, given in schema["properties"].items():
        # That it was not given is no value one could give.
        one, *_ = [part for part in given.get("anyOf", [given]) if part != {"type": "null"}]
        one = one | ({"default": given["default"]} if given.get("default") else {})
        parameter: Document = {"name": name, "in": "query", "required": name in schema["required"]}
        if description := one.pop("description", None):
            parameter["description"] = description
        if one.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        found.append(parameter | {"schema": one})
    return found


def _request(endpoint: Endpoint, schema_of: Callable[[Any], Document]) -> Document:
    kind = endpoint.body
    if not (batch := endpoint.options and endpoint.options.batch_key):
        return {"schema": schema_of(kind), "example": EXAMPLES[kind]}
    items = schema_of(kind) | {"maxItems": MAX_BATCH}
    wrapped = {"type": "object", "properties": {batch: items}, "required": [batch], "additionalProperties": False}
    return {"schema": {"oneOf": [items, wrapped]}, "example": [EXAMPLES[kind.__args__[0]]]}


def _responses(endpoint: Endpoint, schema_of: Callable[[Any], Document]) -> Document:
    success = endpoint.handler.status_code
    responses: Document = {str(success): _answer(endpoint, success, endpoint.answer, schema_of)}
    for status, kind in _further(endpoint).items():
        responses[str(status)] = _answer(endpoint, status, kind, schema_of)
    if endpoint.is_of_consumer and endpoint.method == "GET":
        not_modified = HTTPStatus.NOT_MODIFIED
        responses["304"] = {"description": not_modified.phrase, "headers": answer_headers(endpoint, not_modified)}
    for error in _errors(endpoint):
        responses[str(error.value)] = {
            "description": error.phrase,
            "headers": answer_headers(endpoint, error),
            "content": {JSON: {"schema": schema_of(ErrorBody), "example": error_example(error, endpoint.resource)}},
        }
    return dict(sorted(responses.items()))


def _answer(endpoint: Endpoint, status: int, kind: Any, schema_of: Callable[[Any], Document]) -> Document:
    media = str(getattr(endpoint.handler.media_type, "value", endpoint.handler.media_type) or JSON).partition(";")[0]
    content: Document = {"schema": {"type": "string"} if kind is bytes else schema_of(kind)}
    if kind in EXAMPLES:
        content["example"] = EXAMPLES[kind]
    phrase = HTTPStatus(status).phrase
    return {"description": phrase, "headers": answer_headers(endpoint, HTTPStatus(status)), "content": {media: content}}


def _errors(endpoint: Endpoint) -> Iterator[HTTPStatus]:
    if not endpoint.options:
        return
    batch_change = endpoint.method == "PUT" and endpoint.options.limit == "batch"
    names_another = endpoint.parameters is not None and "audience_id" in endpoint.parameters.__struct_fields__
    possible = {
        # A POST has an Idempotency-Key, which may be wrong.
        HTTPStatus.BAD_REQUEST: endpoint.parameters or endpoint.body or endpoint.method == "POST",
        HTTPStatus.UNAUTHORIZED: True,
        HTTPStatus.FORBIDDEN: True,
        HTTPStatus.NOT_FOUND: endpoint.has_path_parameter or batch_change or names_another,
        HTTPStatus.CONFLICT: endpoint.method == "POST",
        HTTPStatus.PRECONDITION_FAILED: endpoint.is_of_consumer and endpoint.method in {"PUT", "DELETE"},
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: endpoint.body,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE: endpoint.body,
        HTTPStatus.TOO_MANY_REQUESTS: True,
        HTTPStatus.INTERNAL_SERVER_ERROR: True,
        HTTPStatus.SERVICE_UNAVAILABLE: True,
    }
    yield from (status for status, may_be in possible.items() if may_be)
