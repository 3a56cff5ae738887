"""The OpenAPI document, made from the routes and their types.

The signature of a route declares the types of parameters, body and answer; the types declare the allowed values. This
module adds the conventions of contract.md §1 for all routes of a kind: headers, errors, authentication.
"""

from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from inspect import cleandoc
from typing import Any

import msgspec
from litestar.routes import BaseRoute

from api.budget import TOO_MANY_REQUESTS
from api.errors import MAX_FAULTS, ErrorBody
from api.openapi.endpoints import Endpoint, endpoints
from api.openapi.examples import error_example, example_of
from api.openapi.headers import COMPONENTS, answer_headers, request_headers
from api.route_options import OBJECT_BODY_BYTES, RouteOptions
from api.validation import MAX_BATCH, Input

JSON = "application/json"
SCHEMAS = "#/components/schemas/{name}"
DESCRIPTION = f"""\
Every error has the same envelope, and every response an `X-Request-Id`. An unknown path is a 404, and so is another
spelling of a path, such as `//` or `%63`; a method that a path does not have is a 405 with `Allow`. HEAD answers like
GET. A malformed request is a 400, headers or a body that arrive too slowly are a 408, a path over 32 KiB is a 414, and
headers over 32 KiB are a 431. A response lists at most {MAX_FAULTS} faults; `message` says how many more there are. A
429 says `Rate limit exceeded` after too many requests in a minute, or too many without a valid key from one address,
and `{TOO_MANY_REQUESTS}` if too many requests of the environment run at a time. After a 429 or 503, retry as
`Retry-After` says. A 403 says `Storage limit reached` if the environment stores as much as allowed."""

Document = dict[str, Any]
SchemaOf = Callable[[Any], Document]


def document(routes: Sequence[BaseRoute]) -> Document:
    """Build the document of an application's routes."""
    documented = list(endpoints(routes))
    types = list(dict.fromkeys([ErrorBody, *_types(documented)]))
    schemas, components = msgspec.json.schema_components(types, ref_template=SCHEMAS)
    components = _adapted(components)
    schema_of = dict(zip(types, schemas, strict=True))
    for struct in _subclasses(Input):
        if struct.__name__ in components:
            components[struct.__name__] |= _closed(struct, components[struct.__name__])
    paths: Document = {}
    for endpoint in documented:
        operation = _operation(endpoint, schema_of.__getitem__, components)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    queries = {endpoint.parameters.__name__ for endpoint in documented if endpoint.parameters}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Consumers API", "version": "1", "description": DESCRIPTION},
        "paths": paths,
        "components": COMPONENTS | {"schemas": {name: components[name] for name in components if name not in queries}},
    }


def _types(documented: Sequence[Endpoint]) -> Iterator[Any]:
    for endpoint in documented:
        for annotation in (endpoint.parameters, endpoint.body, endpoint.answer, *endpoint.further_answers.values()):
            if annotation:
                yield annotation


def _subclasses(struct: type[Input]) -> Iterator[type[Input]]:
    for subclass in struct.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _adapted(schema: Any) -> Any:
    """Adapt a schema of msgspec to this API: a Decimal is a number, and in a request (with a pattern) also a text."""
    if isinstance(schema, list):
        return [_adapted(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _adapted(part) for name, part in schema.items()}
    if schema.get("format") == "decimal":
        del schema["format"]
        schema["type"] = ["number", "string"] if "pattern" in schema else "number"
    if isinstance(schema.get("description"), str):
        schema["description"] = cleandoc(schema["description"])
    return schema


def _closed(struct: type[Input], schema: Document) -> Document:
    """Return the keywords for a type without further fields; read-only fields are allowed."""
    ignored = {name: {"description": "Read-only: ignored."} for name in sorted(struct.read_only)}
    return {"properties": ignored | schema["properties"], "additionalProperties": False}


def _operation(endpoint: Endpoint, schema_of: SchemaOf, components: Document) -> Document:
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
        operation["security"] = [{"operatorKey" if options.for_operators else "key": []}]
        limit = f"Counts against the rate limit for {options.limit}."
        operation["description"] = f"{_requirements(endpoint, options)} {limit}"
        if endpoint.body:
            operation["description"] += f" The body has at most {options.max_body_bytes // 1024} KiB."
        if options.batch_key:
            operation["description"] += f" An item has at most {OBJECT_BODY_BYTES // 1024} KiB."
    if endpoint.body:
        operation["requestBody"] = {"required": True, "content": {JSON: _request(endpoint, schema_of)}}
    return operation


def _requirements(endpoint: Endpoint, options: RouteOptions) -> str:
    if options.for_operators:
        return "Requires an operator key."
    names = " and ".join(f"`{scope}`" for scope in options.scopes)
    sentences = [f"Requires the scope {names}." if len(options.scopes) == 1 else f"Requires the scopes {names}."]
    sentences += [
        f"With `{required.name(struct)}`, also requires the scope `{required.scope}`."
        for struct in endpoint.inputs
        for required in struct.field_scopes
    ]
    return " ".join(sentences)


def _path_names(endpoint: Endpoint) -> list[str]:
    return [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]


def query_parameters(schema: Document) -> list[Document]:
    """Return the parameters of a query, given the schema of the type."""
    parameters = []
    for name, declared in schema["properties"].items():
        # In the type, null stands for an omitted parameter; a query cannot contain null.
        value, *_ = [part for part in declared.get("anyOf", [declared]) if part != {"type": "null"}]
        value = value | ({"default": declared["default"]} if declared.get("default") else {})
        parameter: Document = {"name": name, "in": "query", "required": name in schema["required"]}
        if description := value.pop("description", None):
            parameter["description"] = description
        if value.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        parameters.append(parameter | {"schema": value})
    return parameters


def _request(endpoint: Endpoint, schema_of: SchemaOf) -> Document:
    schema: Document = schema_of(endpoint.body)
    if batch_key := endpoint.options and endpoint.options.batch_key:
        array = schema | {"maxItems": MAX_BATCH}
        properties = {batch_key: array}
        wrapped = {
            "type": "object",
            "properties": properties,
            "required": [batch_key],
            "additionalProperties": False,
        }
        schema = {"oneOf": [array, wrapped]}
    return _with_example({"schema": schema}, endpoint.body)


def _with_example(content: Document, annotation: Any) -> Document:
    example = example_of(annotation)
    return content if example is None else content | {"example": example}


def _responses(endpoint: Endpoint, schema_of: SchemaOf) -> Document:
    success = endpoint.handler.status_code
    responses: Document = {str(success): _answer(endpoint, success, endpoint.answer, schema_of)}
    for status, annotation in endpoint.further_answers.items():
        responses[str(status)] = _answer(endpoint, status, annotation, schema_of)
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


def _answer(endpoint: Endpoint, status: int, annotation: Any, schema_of: SchemaOf) -> Document:
    media = str(getattr(endpoint.handler.media_type, "value", endpoint.handler.media_type) or JSON).partition(";")[0]
    schema = {"type": "string"} if annotation is bytes else schema_of(annotation)
    content = _with_example({"schema": schema}, annotation)
    phrase = HTTPStatus(status).phrase
    return {"description": phrase, "headers": answer_headers(endpoint, HTTPStatus(status)), "content": {media: content}}


def _errors(endpoint: Endpoint) -> Iterator[HTTPStatus]:
    if not endpoint.options:
        return
    batch_change = endpoint.method == "PUT" and endpoint.options.limit == "batch"
    names_another = endpoint.parameters is not None and "audience_id" in endpoint.parameters.__struct_fields__
    is_possible = {
        # Every POST takes an Idempotency-Key, possibly invalid.
        HTTPStatus.BAD_REQUEST: endpoint.parameters
        or endpoint.body
        or endpoint.is_from_index
        or endpoint.method == "POST",
        HTTPStatus.UNAUTHORIZED: True,
        HTTPStatus.FORBIDDEN: True,
        HTTPStatus.NOT_FOUND: endpoint.has_path_parameter or batch_change or names_another,
        HTTPStatus.CONFLICT: endpoint.method == "POST",
        # A POST of these resources answers with consumers, which may be deleted before a replay.
        HTTPStatus.GONE: endpoint.method == "POST" and endpoint.resource in {"consumers", "orders"},
        HTTPStatus.PRECONDITION_FAILED: endpoint.is_of_consumer and endpoint.method in {"PUT", "DELETE"},
        HTTPStatus.REQUEST_TIMEOUT: endpoint.body,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: endpoint.body,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE: endpoint.body,
        HTTPStatus.TOO_MANY_REQUESTS: True,
        HTTPStatus.INTERNAL_SERVER_ERROR: True,
        HTTPStatus.SERVICE_UNAVAILABLE: True,
    }
    yield from (status for status, may_be in is_possible.items() if may_be)
