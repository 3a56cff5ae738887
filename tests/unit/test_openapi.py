"""The OpenAPI documents built from the routes: the rules that let generators of client libraries accept them."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from api.openapi.document import document
from api.openapi.examples import example_of
from tests.endpoints import authenticated_endpoints, documented_routes

GENERAL = {"Change", "Consumer", "Error", "Item", "Match", "Part", "Rule", "Run", "Status", "Type", "Value"}
MERCHANTS, OPERATORS = (document(documented_routes(), for_operators=for_operators) for for_operators in (False, True))
BOTH = pytest.mark.parametrize("openapi", [MERCHANTS, OPERATORS], ids=["merchants", "operators"])


def objects(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each object in a document, except for examples, which are data."""
    if isinstance(value, dict):
        yield path, value
        for name, part in value.items():
            if name not in {"example", "examples"}:
                yield from objects(part, f"{path}/{name}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from objects(part, f"{path}/{index}")


def operations(openapi: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{verb} {path}": one for path, verbs in openapi["paths"].items() for verb, one in verbs.items()}


def test_every_body_and_response_has_an_example() -> None:
    types = {
        f"{endpoint.method} {endpoint.path}: {annotation}": annotation
        for endpoint in authenticated_endpoints()
        for annotation in (endpoint.body, endpoint.answer, *endpoint.further_answers.values())
        if annotation and annotation is not bytes  # a file
    }
    assert len(types) > 40
    assert [name for name, annotation in types.items() if example_of(annotation) is None] == []


def test_operators_have_a_document_of_their_own() -> None:
    assert {path.startswith("/api/v1/ops/") for path in OPERATORS["paths"]} == {True}
    assert not any(path.startswith("/api/v1/ops/") for path in MERCHANTS["paths"])
    assert len(operations(OPERATORS)) + len(operations(MERCHANTS)) > len(authenticated_endpoints())


@BOTH
def test_every_schema_has_a_single_type(openapi: dict[str, Any]) -> None:
    """Of several types, generators make an empty type, or refuse the document. A second type `null` is understood."""
    schemas = list(objects(openapi["components"])) + list(objects(openapi["paths"]))
    assert len(schemas) > 500
    for path, schema in schemas:
        if "enum" in schema or "const" in schema:
            assert schema["type"] in ("string", ["string", "null"]), path
        if isinstance(schema.get("type"), list):
            assert len(schema["type"]) == 2, path
            assert schema["type"][1] == "null", path
        for part in schema.get("anyOf", []):
            assert part.keys() & {"type", "$ref"}, path
        if schema.get("type") == "number":
            assert schema["format"] == "double", path
        if schema.get("type") == "object":
            assert schema.keys() & {"properties", "additionalProperties"}, path


@BOTH
def test_every_reference_leads_to_a_component(openapi: dict[str, Any]) -> None:
    references = {part["$ref"] for _, part in objects(openapi) if "$ref" in part}
    assert references
    for reference in references:
        _, components, kind, name = reference.split("/")
        assert name in openapi[components][kind], reference


@BOTH
def test_every_component_is_used(openapi: dict[str, Any]) -> None:
    text = json.dumps(openapi)
    for kind in ("headers", "parameters", "schemas"):
        unused = [name for name in openapi["components"][kind] if f'"#/components/{kind}/{name}"' not in text]
        assert openapi["components"][kind]
        assert not unused


@BOTH
def test_no_schema_has_a_default(openapi: dict[str, Any]) -> None:
    """Generated clients would send the default, even where omitting the field has another meaning."""
    assert [path for path, schema in objects(openapi["components"]["schemas"]) if "default" in schema] == []
    parameters = [one for operation in operations(openapi).values() for one in operation["parameters"]]
    assert [one for one in parameters if "default" in one.get("schema", {})] == []


def test_amounts_are_text_in_requests_and_answers() -> None:
    schemas = MERCHANTS["components"]["schemas"]
    for name in ("OrderCreate", "OrderUpdate", "Order"):
        for field in ("amount", "refundedAmount", "baseAmount"):
            assert "string" in schemas[name]["properties"][field]["type"], (name, field)


def test_read_only_fields_are_typed() -> None:
    schemas = MERCHANTS["components"]["schemas"]
    for body, answer in {
        "ConsumerCreate": "StoredConsumer",
        "ConsumerUpdate": "StoredConsumer",
        "OrderUpdate": "Order",
    }.items():
        read_only = {name: field for name, field in schemas[body]["properties"].items() if field.get("readOnly")}
        assert {"id", "createdAt", "updatedAt"} <= read_only.keys(), body
        for name, field in read_only.items():
            assert field == schemas[answer]["properties"][name] | {"readOnly": True}, (body, name)


@BOTH
def test_names_are_unique_in_generated_code(openapi: dict[str, Any]) -> None:
    """Schemas, headers and parameters become types in one namespace: `IndexState` would also be `Index-State`."""
    components = openapi["components"]
    names = set(components["schemas"])
    assert not names & GENERAL
    assert not {name for name in names if name.startswith("New")}, "NewConsumer is Go's constructor of Consumer"
    headers = {name.replace("-", "") for kind in ("headers", "parameters") for name in components[kind]}
    assert not names & headers


@BOTH
def test_path_parameters_are_in_camel_case(openapi: dict[str, Any]) -> None:
    names = [name for path in openapi["paths"] for name in re.findall(r"{(.*?)}", path)]
    assert names
    assert [name for name in names if not re.fullmatch("[a-z]+(Id)?", name)] == []


def test_batches_are_arrays() -> None:
    for path, verbs in MERCHANTS["paths"].items():
        if path.endswith("/batch"):
            for operation in verbs.values():
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                assert (schema["type"], schema["maxItems"]) == ("array", 500)


@BOTH
def test_everything_is_described(openapi: dict[str, Any]) -> None:
    assert openapi["servers"]
    tags = {tag["name"]: tag["description"] for tag in openapi["tags"]}
    undescribed = []
    for name, operation in operations(openapi).items():
        assert operation["description"], name
        assert set(operation["tags"]) <= tags.keys(), name
        assert "security" in operation, name
        undescribed += [
            (name, one["name"]) for one in operation["parameters"] if not one.get("description", one.get("$ref"))
        ]
    for name, schema in openapi["components"]["schemas"].items():
        undescribed += [(name, "")] * ("description" not in schema)
        undescribed += [
            (name, field)
            for field, declared in schema.get("properties", {}).items()
            if "description" not in declared and "$ref" not in declared
        ]
    assert undescribed == []


@BOTH
def test_parameters_have_no_examples(openapi: dict[str, Any]) -> None:
    """Swagger UI sends the example of a parameter by itself."""
    named = [one for operation in operations(openapi).values() for one in operation["parameters"] if "name" in one]
    parameters = [*named, *openapi["components"]["parameters"].values()]
    assert [one for one in parameters for part in (one, one["schema"]) if part.keys() & {"example", "examples"}] == []


def test_the_order_is_that_of_a_reader() -> None:
    assert [tag["name"] for tag in MERCHANTS["tags"]] == [
        "Consumers",
        "Orders",
        "Audiences",
        "Exports",
        "Live questions",
        "Service",
    ]
    assert next(iter(MERCHANTS["paths"])) == "/api/v1/consumers"


@pytest.mark.parametrize("path", ["/api/v1/consumers/changes", "/api/v1/orders/changes"])
def test_feed_documents_its_wait_and_its_expiry(path: str) -> None:
    feed = MERCHANTS["paths"][path]["get"]
    assert {"$ref": "#/components/parameters/PreferForChanges"} in feed["parameters"]
    assert MERCHANTS["components"]["parameters"]["PreferForChanges"]["name"] == "Prefer"
    assert "Preference-Applied" in feed["responses"]["200"]["headers"]
    assert feed["responses"]["410"]["content"]["application/json"]["example"]["error"] == "Changes expired"
