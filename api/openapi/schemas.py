"""Schemas of the OpenAPI document: the schemas of msgspec, adapted for generators of client libraries.

msgspec describes values exactly. Generators expect less: one type for each value, a type beside each enum, and names
without a meaning in programming languages or among the headers. `tests/unit/test_openapi.py` holds these rules.
"""

import ast
from collections.abc import Collection, Iterable, Iterator, Sequence
from inspect import cleandoc, getsource
from textwrap import dedent
from typing import Any

import msgspec
from msgspec import inspect

from api.validation import Input

Schema = dict[str, Any]

NULL: Schema = {"type": "null"}
REF = "#/components/schemas/"
FORMATS = {"number": "double", "integer": "int64"}
"""Without a format, generators choose 32 bits, which cannot hold each amount and each number of bytes."""
NAMES = {
    "Consumer": "StoredConsumer",
    "Counted": "IndexReindexCount",
    "Difference": "IndexDifference",
    "Epoch": "IndexEpoch",
    "Generation": "IndexGeneration",
    "Indexed": "IndexedConsumer",
    "Change": "IndexedConsumerChange",
    "Live": "HealthLive",
    "Match": "ConsumerMatch",
    "Members": "AudienceMembers",
    "MembersChanged": "AudienceMembersChanged",
    "Parked": "IndexParkedChange",
    "Part": "IndexerPart",
    "Ready": "HealthReady",
    "Rebuild": "IndexRebuild",
    "Reindex": "IndexReindex",
    "Reindexes": "IndexReindexes",
    "Repair": "IndexRepair",
    "Retried": "IndexRetried",
    "RetryParked": "IndexRetry",
    "Rule": "AudienceRule",
    "Run": "IndexRun",
    "Status": "IndexStatus",
    "Sums": "ExportSums",
    "Totals": "IndexerTotals",
    "Verification": "IndexVerification",
    "Verifications": "IndexVerifications",
    "Waiting": "IndexBacklog",
    "Worker": "IndexerWorker",
}
"""Names in the document of types with a general name in Python: all types of a generated client share one namespace."""


class Schemas:
    """The schemas of some types, and of the structs in these types as components.

    Args:
        types: of bodies, queries and answers.
        answers: bodies and their answers. A read-only field of a body is described as in an answer with all of them.
    """

    def __init__(self, types: Sequence[Any], answers: Iterable[tuple[Any, Any]]) -> None:
        schemas, components = msgspec.json.schema_components(types, ref_template=f"{REF}{{name}}")
        structs = {struct.__name__: struct for struct in _structs(map(inspect.type_info, types))}
        self._schemas = dict(zip(types, map(_adapted, schemas), strict=True))
        adapted = {name: _component(structs.get(name), schema) for name, schema in components.items()}
        for body, answer in answers:
            shown = adapted[answer.__name__]["properties"]
            if issubclass(body, Input) and body.read_only <= shown.keys():
                adapted[body.__name__] |= _with_read_only(body, adapted[body.__name__], shown)
        self.components = {NAMES.get(name, name): schema for name, schema in adapted.items()}
        for schema in self.components.values():
            for name, declared in schema.get("properties", {}).items():
                if NULL in declared.get("anyOf", []):
                    schema["properties"][name] = self._without_union(declared, is_sent="additionalProperties" in schema)

    def _without_union(self, declared: Schema, *, is_sent: bool) -> Schema:
        """Return the schema of an object or null without a union: generators refuse a reference beside null.

        In a request, null says the same as an omitted field, and is left out of the document.
        """
        reference: Schema
        [reference, _] = declared["anyOf"]
        if is_sent:
            return {name: part for name, part in declared.items() if name != "anyOf"} | reference
        schema = self.components[reference["$ref"].removeprefix(REF)]
        return schema | {"type": ["object", "null"]}

    def of(self, annotation: Any) -> Schema:
        """Return the schema of one of the types."""
        schema: Schema = self._schemas[annotation]
        return schema

    def components_without(self, structs: Collection[type[Any]]) -> dict[str, Schema]:
        """Return the components, apart from some types: queries are parameters, not components."""
        names = {struct.__name__ for struct in structs}
        return {name: schema for name, schema in self.components.items() if name not in names}

    def component(self, struct: type[Any]) -> Schema:
        """Return the schema of a struct, in place of the reference to the component."""
        schema: Schema = self.components[NAMES.get(struct.__name__, struct.__name__)]
        return schema


def _structs(infos: Iterable[Any]) -> Iterator[type[Any]]:
    """Yield each struct in some types, and in their fields. No type of the API contains itself."""
    for info in infos:
        if isinstance(info, inspect.StructType):
            yield info.cls
            yield from _structs(field.type for field in info.fields)
        elif isinstance(info, inspect.Metadata):
            yield from _structs([info.type])
        elif isinstance(info, inspect.UnionType):
            yield from _structs(info.types)
        elif isinstance(info, inspect.DictType):
            yield from _structs([info.value_type])
        elif isinstance(info, inspect.CollectionType):
            yield from _structs([info.item_type])


def _component(struct: type[Any] | None, schema: Schema) -> Schema:
    """Adapt the schema of a struct.

    A default in a request would be sent by generated clients. A default in a response is a value of the server: the
    field is always present, unless the struct omits defaults.
    """
    properties = schema.get("properties", {})
    always = [name for name, declared in properties.items() if name in schema["required"] or "default" in declared]
    if struct and issubclass(struct, Input):
        adapted = _adapted(schema) | {"additionalProperties": False}
    elif struct and struct.__struct_config__.omit_defaults:
        present = {name: _without_null(declared) for name, declared in properties.items()}
        adapted = _adapted(schema | {"properties": present})
    else:
        adapted = _adapted(schema | {"required": always})
    texts = _texts(struct) if struct else {}
    for name, declared in adapted.get("properties", {}).items():
        declared.pop("default", None)
        if name in texts and "$ref" not in declared:
            declared.setdefault("description", texts[name])
    result: Schema = adapted | {"title": NAMES.get(schema["title"], schema["title"])}
    return result


def _texts(struct: type[Any]) -> dict[str, str]:
    """Return the descriptions of a struct's fields that have a docstring, by their names in JSON."""
    docstrings = dict[str, str]()
    for kind in reversed(struct.__mro__):
        if issubclass(kind, msgspec.Struct) and kind.__struct_fields__ and kind.__module__ != "msgspec":
            [definition] = ast.parse(dedent(getsource(kind))).body
            assert isinstance(definition, ast.ClassDef)
            for field, text in zip(definition.body, definition.body[1:], strict=False):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(docstring))):
                        docstrings[name] = cleandoc(docstring)
    encoded = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
    return {encoded[name]: text for name, text in docstrings.items() if name in encoded}


def _without_null(declared: Schema) -> Schema:
    """Return the schema of a field that is absent rather than null."""
    if "default" not in declared or "anyOf" not in declared:
        return declared
    return declared | {"anyOf": [part for part in declared["anyOf"] if part != NULL]}


def _with_read_only(body: type[Input], schema: Schema, shown: Schema) -> Schema:
    """Add the read-only fields of a body, which the service ignores, as they are in an answer."""
    read_only = {name: shown[name] | {"readOnly": True} for name in sorted(body.read_only)}
    return {"properties": read_only | schema["properties"]}


def _adapted(schema: Any) -> Any:
    """Adapt a schema and its parts."""
    if isinstance(schema, list):
        return [_adapted(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _adapted_keyword(name, part) for name, part in schema.items()}
    if reference := schema.get("$ref"):
        name = reference.removeprefix(REF)
        return schema | {"$ref": f"{REF}{NAMES.get(name, name)}"}
    if schema.get("format") == "decimal":
        schema = _decimal(schema)
    if alternatives := schema.pop("anyOf", None):
        schema = _united(schema, alternatives)
    kind = schema.get("type")
    if isinstance(kind, str) and kind in FORMATS and "maximum" not in schema:
        schema["format"] = FORMATS[kind]
    if "enum" in schema or "const" in schema:
        schema.setdefault("type", "string")
    if schema.get("type") == "object" and not schema.keys() & {"properties", "additionalProperties"}:
        schema["additionalProperties"] = True
    if isinstance(schema.get("description"), str):
        schema["description"] = cleandoc(schema["description"])
    return schema


def _adapted_keyword(keyword: str, value: Any) -> Any:
    """Adapt the value of a keyword. The names in `properties` are not keywords."""
    if keyword == "properties":
        return {name: _adapted(part) for name, part in value.items()}
    return _adapted(value)


def _decimal(schema: Schema) -> Schema:
    """Adapt a decimal: a number in an answer, text in a request (with a pattern), where numbers are taken as well."""
    if "pattern" not in schema:
        return schema | {"type": "number", "format": FORMATS["number"]}
    return {name: value for name, value in schema.items() if name not in {"format", "minimum"}} | {"type": "string"}


def _united(schema: Schema, alternatives: list[Schema]) -> Schema:
    """Write alternatives as a single type, with null as a second, where this says the same."""
    values = [part for part in alternatives if part != NULL]
    if any(part.get("type") == "number" for part in values):
        values = [part for part in values if part.get("type") != "integer"]
    is_nullable = NULL in alternatives
    if len(values) > 1 or "$ref" in values[0]:
        return schema | {"anyOf": values + [NULL] * is_nullable} if is_nullable or len(values) > 1 else values[0]
    [value] = values
    if is_nullable:
        value = value | {"type": [value["type"], "null"]}
        if "enum" in value:
            value["enum"] = [*value["enum"], None]
    return value | schema
