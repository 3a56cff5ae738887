"""From a request's bytes to checked values, with every fault found at once.

The types of `schemas.py` say what is allowed: msgspec's own constraints, and for the rest a function in a type's
`Meta(extra=…)`, called with the value and the caller: `check` after msgspec converted the value, `parse` instead.
The OpenAPI document follows from the same types.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from litestar.dto import AbstractDTO
from litestar.typing import FieldDefinition
from msgspec import inspect

from api.auth import Caller
from api.errors import Fault, Problem, invalid
from api.route_options import options_of

MAX_BODY_BYTES = 10 * 1024 * 1024
MAX_BATCH = 500

Rule = Callable[[Any, Caller], Any]
S = TypeVar("S")
B = TypeVar("B", bound="Body")


class Body(msgspec.Struct, rename="camel", kw_only=True):
    """What a request may say. Fields of the answer that it may not set are ignored; unknown ones are a fault."""

    read_only: ClassVar[frozenset[str]] = frozenset()

    def faults(self, caller: Caller) -> Iterable[Fault]:
        """Faults between fields, looked for once each field by itself is right."""
        del caller
        return ()


class JSONBody(AbstractDTO[Any]):
    """Decodes a route's `data`: a `Body`, or a list of them, bare or under the key that is the route's `batch`."""

    _types: ClassVar[dict[str, Any]] = {}

    @classmethod
    def create_for_field_definition(
        cls, field_definition: FieldDefinition, handler_id: str, backend_cls: Any = None
    ) -> None:
        del backend_cls
        cls._types[handler_id] = field_definition.annotation

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Any:
        del model_type
        return iter(())

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        del field_definition
        return False

    def decode_bytes(self, value: bytes) -> Any:
        connection = self.asgi_connection
        content_type = connection.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if content_type != "application/json" and not content_type.endswith("+json"):
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json")
        caller = cast("Caller", connection.scope["auth"])
        raw, handler = parse(value), connection.route_handler
        wanted = self._types[handler.handler_id]
        reading = _Reading(caller)
        data: Any
        if batch := options_of(handler).batch_key:
            data = reading.items(raw, batch, wanted.__args__[0])
        else:
            data = reading.struct(raw, wanted, "")
        if reading.faults and (data is None or "faults" not in handler.opt):
            raise invalid(*reading.faults)
        connection.scope["state"]["faults"] = reading.faults
        return data


def early_faults(request: Request[Any, Any, Any]) -> list[Fault]:
    """What is wrong with a body by itself, for routes that go on to what is wrong with it in the database: their `opt`
    says `faults`. The faulty fields are unset, also those that a type requires; of a batch, items that are no objects
    are None.
    """
    found: list[Fault] = request.scope["state"]["faults"]
    return found


def parse(body: bytes) -> Any:
    """The JSON value of a body.

    Raises:
        Problem: 400 if it is not strictly JSON in UTF-8, repeats a key, or holds NUL, lone surrogates or numbers
            beyond a double's range.
    """
    try:
        value = msgspec.json.decode(body)
        if b"\\u0000" in body and _has_nul(value):
            raise ValueError("NUL is not allowed")
        json.loads(body, object_pairs_hook=_refuse_repeated_keys)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        message = "JSON is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Problem(HTTPStatus.BAD_REQUEST, "Invalid JSON", message=message) from None
    return value


def parameters(request: Request[Any, Any, Any], wanted: type[B], caller: Caller) -> B:
    """The checked parameters of a query.

    Raises:
        Problem: 400 with all faults: unknown ones, ones given twice, bad values.
    """
    reading = _Reading(caller, unknown="Unknown parameter", from_text=True)
    raw: dict[str, Any] = {}
    query = request.scope["query_string"].decode("utf-8", "surrogateescape")
    for given, text in parse_qsl(query, keep_blank_values=True, errors="surrogateescape"):
        name = given.encode("utf-8", "replace").decode()
        if name in raw:
            reading.faults.append(Fault(name, "Given twice"))
        if "\0" in text:
            reading.faults.append(Fault(name, "NUL is not allowed"))
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            reading.faults.append(Fault(name, "Must be UTF-8, percent-encoded"))
        raw[name] = text
    return reading.result(reading.struct(raw, wanted, ""))


class _Reading:
    """One request being read: gathers faults instead of stopping at the first."""

    def __init__(self, caller: Caller, *, unknown: str = "Unknown field", from_text: bool = False) -> None:
        self.faults: list[Fault] = []
        self._caller, self._unknown, self._from_text = caller, unknown, from_text

    def result(self, value: S | None) -> S:
        if self.faults or value is None:
            raise invalid(*self.faults)
        return value

    def items(self, raw: Any, key: str, wanted: type[S]) -> list[S | None]:
        """The items of a batch, which is a bare array or an object with the array under `key`.

        Raises:
            Problem: 400 if there is no array, or more than 500 items in it.
        """
        if isinstance(raw, dict):
            self.faults += [Fault(name, self._unknown) for name in raw if name != key]
            raw = raw.get(key)
        if not isinstance(raw, list):
            raise invalid(*self.faults, Fault(key, "Expected an array"))
        if len(raw) > MAX_BATCH:
            raise invalid(error=f"Max batch size is {MAX_BATCH}")
        return [self.struct(item, wanted, f"[{place}]") for place, item in enumerate(raw)]

    def struct(self, raw: Any, wanted: type[S], path: str) -> S | None:
        if not isinstance(raw, dict):
            self.faults.append(Fault(path or "body", "Expected an object"))
            return None
        values, fields = {}, _fields(wanted)  # type: ignore[arg-type]  # a class is hashable
        ignored = wanted.read_only if issubclass(wanted, Body) else frozenset()
        faulty = set()
        for name, field in fields.items():
            before = len(self.faults)
            if name in raw:
                values[field.info.name] = self._value(raw[name], field, _join(path, name))
            elif field.info.required:
                self.faults.append(Fault(_join(path, name), "Required"))
            if len(self.faults) > before:
                faulty.add(name)
                values.pop(field.info.name, None)
        # A faulty parameter was given, all the same.
        lost = [fields[name].info for name in faulty]
        unset = {info.name: msgspec.UNSET for info in lost if info.required or self._from_text}
        value = wanted(**values, **unset)
        # What is wrong with one parameter says nothing of the others; of a body's fields it may.
        if isinstance(value, Body) and (self._from_text or not faulty):
            found = value.faults(self._caller)
            self.faults.extend(Fault(_join(path, fault.field), fault.message) for fault in found)
        unknown = [name for name in raw if name not in fields and name not in ignored]
        self.faults.extend(Fault(_join(path, name), self._unknown) for name in unknown)
        return value

    def _value(self, raw: Any, field: "_Field", path: str) -> Any:
        kind = field.kind
        if raw is not None and kind.struct:
            return self.struct(raw, kind.struct, path)
        if isinstance(raw, list) and kind.item:
            if kind.max_items is not None and len(raw) > kind.max_items:
                self.faults.append(Fault(path, f"At most {kind.max_items} items"))
                return None
            return [self.struct(item, kind.item, f"{path}[{place}]") for place, item in enumerate(raw)]
        try:
            if kind.parse and raw is not None:
                return kind.parse(raw, self._caller)
            value = msgspec.convert(raw, field.info.type, strict=not self._from_text)
            if value is None and self._from_text:  # `null` is a text like any other
                raise ValueError("Invalid value")
            return kind.check(value, self._caller) if kind.check and value is not None else value
        except ValueError as error:  # msgspec.ValidationError is one
            self.faults.append(Fault(path, str(error).partition(" - at `$")[0]))
            return None


class _Kind(msgspec.Struct, frozen=True):
    """What a field's annotation says beyond msgspec's own constraints."""

    check: Rule | None = None
    parse: Rule | None = None
    struct: type[Any] | None = None
    item: type[Any] | None = None
    max_items: int | None = None


class _Field(NamedTuple):
    info: msgspec.structs.FieldInfo
    kind: _Kind


@cache
def _fields(wanted: Any) -> Mapping[str, _Field]:
    return {info.encode_name: _Field(info, _kind(info.type)) for info in msgspec.structs.fields(wanted)}


def _kind(wanted: Any) -> _Kind:
    kind = inspect.type_info(wanted)
    for part in kind.types if isinstance(kind, inspect.UnionType) else (kind,):
        if isinstance(part, inspect.Metadata) and part.extra:
            return _Kind(check=part.extra.get("check"), parse=part.extra.get("parse"))
        if isinstance(part, inspect.StructType):
            return _Kind(struct=part.cls)
        if isinstance(part, inspect.ListType) and isinstance(part.item_type, inspect.StructType):
            return _Kind(item=part.item_type.cls, max_items=part.max_length)
    return _Kind()


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"The key {repeated[:64]!r} stands twice in one object")
