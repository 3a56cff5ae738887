"""The OpenAPI documents, made from the routes and their types: one for merchants, and one for operators.

The signature of a route declares the types of parameters, body and answer; the types declare the allowed values. This
module adds the conventions of contract.md §1 for all routes of a kind: headers, errors, authentication.
"""

import re
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from litestar.routes import BaseRoute

from api.error_codes import ErrorCode
from api.errors import MAX_FAULTS, TOO_MANY_REQUESTS, ErrorBody
from api.exports.downloads import MEDIA_TYPES
from api.openapi.endpoints import Endpoint, endpoints, in_reading_order
from api.openapi.examples import error_example, example_of
from api.openapi.headers import COMPONENTS, answer_headers, request_header_names, request_headers
from api.openapi.schemas import Schema, Schemas
from api.openapi.texts import PATH_PARAMETERS, TAGS
from api.route_options import OBJECT_BODY_BYTES, RouteOptions
from api.validation import MAX_BATCH

JSON = "application/json"
CODES = "\n".join(f"| `{code}` | {code.meaning} |" for code in ErrorCode)
DESCRIPTION = f"""\
[The guide](/docs/guide) leads through the API with examples.

Every error has the same envelope, and every response an `X-Request-Id`. An unknown path is a 404, and so is another
spelling of a path, such as `//` or `%63`; a method that a path does not have is a 405 with `Allow`. HEAD answers like
GET. A malformed request is a 400, headers or a body that arrive too slowly are a 408, a path over 32 KiB is a 414, and
headers over 32 KiB are a 431. A response lists at most {MAX_FAULTS} faults; `message` says how many more there are. A
429 says `Rate limit exceeded` after too many requests in a minute, or too many without a valid key from one address,
and `{TOO_MANY_REQUESTS}` if too many requests of the environment run at a time, or write the same objects. After a 429
or 503, retry as `Retry-After` says. A 403 says `Storage limit reached` if the environment stores as much as allowed.

<details><summary>Codes of errors: programs should look at <code>code</code>, because sentences may change</summary>

| code | meaning |
| --- | --- |
{CODES}

</details>"""

Document = dict[str, Any]

REFERENCE = re.compile(r'"#/components/(\w+)/([^"]+)"')


def document(routes: Sequence[BaseRoute], *, for_operators: bool = False) -> Document:
    """Build the document for operators, or for merchants, which also has the routes without a key."""
    chosen = [endpoint for endpoint in endpoints(routes) if endpoint.is_for_operators == for_operators]
    documented = sorted(chosen, key=in_reading_order)
    answers = [(item, endpoint.answer_item) for endpoint in documented if (item := endpoint.body_item)]
    schemas = Schemas(list(dict.fromkeys([ErrorBody, *_types(documented)])), answers)
    paths: Document = {}
    for endpoint in documented:
        paths.setdefault(endpoint.documented_path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    used = {tag for endpoint in documented for tag in endpoint.tags}
    scheme = "operatorKey" if for_operators else "key"
    built: Document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Consumers API: operations" if for_operators else "Consumers API",
            "version": "1",
            "description": DESCRIPTION,
            "contact": {"name": "The operator of this service"},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The server of this document."}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items() if name in used],
        "paths": paths,
        "components": {
            "headers": dict(COMPONENTS["headers"]),
            "parameters": {name: COMPONENTS["parameters"][name] for name in _header_names(documented)},
            "securitySchemes": {scheme: COMPONENTS["securitySchemes"][scheme]},
            "schemas": schemas.components_without(
                {endpoint.parameters for endpoint in documented if endpoint.parameters}
            ),
        },
    }
    _remove_unused(built)
    return built


def _remove_unused(built: Document) -> None:
    """Remove headers and schemas without a reference, also those that only a removed one refers to.

    A component without use is a fault for linters. Generators would make a type of it.
    """
    while True:
        references = set(REFERENCE.findall(msgspec.json.encode(built).decode()))
        unused = [
            (kind, name)
            for kind in ("headers", "schemas")
            for name in built["components"][kind]
            if (kind, name) not in references
        ]
        if not unused:
            return
        for kind, name in unused:
            del built["components"][kind][name]


def _header_names(documented: Sequence[Endpoint]) -> list[str]:
    """Return the names of the request headers of some endpoints: a component without use is a fault for linters."""
    return sorted({name for endpoint in documented for name in request_header_names(endpoint)})


def _types(documented: Sequence[Endpoint]) -> Iterator[Any]:
    for endpoint in documented:
        for annotation in (endpoint.parameters, endpoint.body, endpoint.answer, *endpoint.further_answers.values()):
            if annotation:
                yield annotation


def _operation(endpoint: Endpoint, schemas: Schemas) -> Document:
    handler = endpoint.handler
    parameters: list[Document] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PATH_PARAMETERS[name],
            "schema": {"type": "string"},
        }
        for name in endpoint.path_names
    ]
    if endpoint.parameters:
        parameters += query_parameters(schemas.component(endpoint.parameters))
    parameters += request_headers(endpoint)
    operation: Document = {
        "operationId": endpoint.name,
        "summary": handler.summary,
        "description": _description(endpoint),
        "tags": endpoint.tags,
        "parameters": parameters,
        "responses": _responses(endpoint, schemas),
        "security": [],
    }
    if options := endpoint.options:
        operation["security"] = [{"operatorKey" if options.for_operators else "key": []}]
    if endpoint.body:
        is_required = not (endpoint.options and endpoint.options.body_is_optional)
        operation["requestBody"] = {"required": is_required, "content": {JSON: _request(endpoint, schemas)}}
    return operation


def _description(endpoint: Endpoint) -> str:
    sentences = [endpoint.handler.description] if endpoint.handler.description else []
    if options := endpoint.options:
        sentences += [_requirements(endpoint, options), f"Counts against the rate limit for {options.limit}."]
        if endpoint.body:
            sentences.append(f"The body has at most {options.max_body_bytes // 1024} KiB.")
        if options.batch_key:
            sentences.append(f"An item has at most {OBJECT_BODY_BYTES // 1024} KiB.")
            sentences.append(f'An object around the array is accepted as well: `{{"{options.batch_key}": […]}}`.')
    return " ".join(sentences)


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


def query_parameters(schema: Schema) -> list[Document]:
    """Return the parameters of a query, given the schema of the type.

    A parameter has no example: Swagger UI would send the example without being told to.
    """
    parameters = []
    for name, declared in schema["properties"].items():
        # In the type, null stands for an omitted parameter; a query cannot contain null.
        types = declared.get("type")
        value = declared | ({"type": types[0]} if isinstance(types, list) else {})
        if "enum" in value:
            value["enum"] = [choice for choice in value["enum"] if choice is not None]
        description = value.pop("description", "")
        if examples := value.pop("examples", None):
            description += f" Example: `{examples[0]}`."
        parameter: Document = {"name": name, "in": "query", "required": name in schema["required"]}
        if name not in schema["required"]:
            parameter["allowEmptyValue"] = True  # an empty parameter counts as omitted
        if value.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        parameters.append(parameter | {"description": description, "schema": value})
    return parameters


def _request(endpoint: Endpoint, schemas: Schemas) -> Document:
    schema = schemas.of(endpoint.body)
    if endpoint.options and endpoint.options.batch_key:
        schema = schema | {"maxItems": MAX_BATCH}
    return _with_example({"schema": schema}, endpoint.body)


def _with_example(content: Document, annotation: Any) -> Document:
    example = example_of(annotation)
    return content if example is None else content | {"example": example}


def _responses(endpoint: Endpoint, schemas: Schemas) -> Document:
    success = endpoint.handler.status_code
    responses: Document = {str(success): _answer(endpoint, success, endpoint.answer, schemas)}
    for status, annotation in endpoint.further_answers.items():
        responses[str(status)] = _answer(endpoint, status, annotation, schemas)
    if endpoint.is_download or (endpoint.is_of_consumer and endpoint.method == "GET"):
        not_modified = HTTPStatus.NOT_MODIFIED
        responses["304"] = {"description": not_modified.phrase, "headers": answer_headers(endpoint, not_modified)}
    for error in _errors(endpoint):
        responses[str(error.value)] = {
            "description": error.phrase,
            "headers": answer_headers(endpoint, error),
            "content": {
                JSON: {
                    "schema": schemas.of(ErrorBody),
                    "example": error_example(error, endpoint.resource, is_feed=endpoint.is_feed),
                }
            },
        }
    return dict(sorted(responses.items()))


def _answer(endpoint: Endpoint, status: int, annotation: Any, schemas: Schemas) -> Document:
    if endpoint.is_download:
        content = {media.partition(";")[0]: {"schema": _file_schema(media)} for media in MEDIA_TYPES.values()}
    else:
        media = str(getattr(endpoint.handler.media_type, "value", endpoint.handler.media_type) or JSON)
        schema = {"type": "string"} if annotation is bytes else schemas.of(annotation)
        content = {media.partition(";")[0]: _with_example({"schema": schema}, annotation)}
    phrase = HTTPStatus(status).phrase
    return {"description": phrase, "headers": answer_headers(endpoint, HTTPStatus(status)), "content": content}


def _file_schema(media: str) -> Schema:
    """Return the schema of a file of an export. The manifest is an object, and all other files are bytes."""
    return {"type": "object", "additionalProperties": True} if media == JSON else {"type": "string", "format": "binary"}


def _errors(endpoint: Endpoint) -> Iterator[HTTPStatus]:
    if not endpoint.options:
        yield HTTPStatus.BAD_REQUEST
        return
    batch_change = endpoint.method == "PUT" and endpoint.options.limit == "batch"
    names_another = endpoint.parameters is not None and "audience_id" in endpoint.parameters.__struct_fields__
    is_possible = {
        # An Idempotency-Key may be invalid.
        HTTPStatus.BAD_REQUEST: endpoint.parameters or endpoint.body or endpoint.is_from_index or endpoint.takes_key,
        HTTPStatus.UNAUTHORIZED: True,
        HTTPStatus.FORBIDDEN: True,
        # A point in time may have ended.
        HTTPStatus.NOT_FOUND: endpoint.path_names
        or endpoint.is_lookup
        or batch_change
        or names_another
        or endpoint.is_question,
        HTTPStatus.CONFLICT: endpoint.takes_key,
        # A write of these resources answers with consumers, which may be deleted before a replay.
        HTTPStatus.GONE: endpoint.is_feed or endpoint.replays_consumers,
        HTTPStatus.PRECONDITION_FAILED: endpoint.is_of_consumer and endpoint.method in {"PUT", "DELETE"},
        HTTPStatus.REQUEST_TIMEOUT: endpoint.body,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: endpoint.body,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE: endpoint.body,
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: endpoint.is_download,
        HTTPStatus.TOO_MANY_REQUESTS: True,
        HTTPStatus.INTERNAL_SERVER_ERROR: True,
        HTTPStatus.SERVICE_UNAVAILABLE: True,
        HTTPStatus.GATEWAY_TIMEOUT: endpoint.is_question,
    }
    yield from (status for status, may_be in is_possible.items() if may_be)
