"""Checks of a request's values against their types. Every fault is reported, not only the first.

The types are declared in the `schemas.py` of each resource, with msgspec's own constraints. Further rules are functions
in `Meta(extra=…)` of a field's type, called with the value and the requester: `check` runs after msgspec has converted
the value, `parse` in place of the conversion. The OpenAPI document is made from the same types.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple, TypeVar

import msgspec
from msgspec import inspect

from api.auth import Requester
from api.error_codes import ErrorCode
from api.errors import MAX_FAULTS, VALIDATION_FAILED, Fault, Faults, Problem
from api.parsing import elements, first_byte, member, parse, parse_texts, size
from api.route_options import OBJECT_BODY_BYTES
from api.scopes import FieldScope
from api.turns import Steps
from api.type_faults import type_fault
from api.unknown_names import unknown

MAX_BATCH, MAX_IDS = 500, 10_000

Rule = Callable[[Any, Requester], Any]
T = TypeVar("T")


class Input(msgspec.Struct, rename="camel", kw_only=True):
    """An object in a request: a body, an item of a batch, or the parameters of a query.

    An unknown field is a fault. A read-only field of the response is ignored, because a client may change an
    object and send the whole object back.
    """

    read_only: ClassVar[frozenset[str]] = frozenset()
    ignored: ClassVar[frozenset[str]] = frozenset()
    """Fields that clients may send, and that have no meaning here."""
    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Advice for unknown names that are known elsewhere in the API."""
    field_scopes: ClassVar[tuple[FieldScope, ...]] = ()
    """Scopes that single fields require."""
    example: ClassVar[Mapping[str, Any]]
    """Shown in the OpenAPI document. Required of each type used as a body, or as an item of a batch."""

    def faults(self, requester: Requester) -> Iterable[Fault]:
        """Yield the faults between fields. Of a body, called only if each field alone is valid."""
        del requester
        return ()


class Checker:
    """Checks the values of a request, and collects the faults.

    Args:
        requester: passed to the rules, because some depend on the environment.
        is_query: whether the values are query parameters, hence texts.
    """

    def __init__(self, requester: Requester, *, is_query: bool = False) -> None:
        self.faults = Faults()
        self.item_faults = dict[int, Faults]()
        """Of a batch: the faults by the index of the item."""
        self._requester, self._is_query = requester, is_query

    def check_body(self, body: bytes, struct: type[T]) -> Steps[T | None]:
        """Parse and check a body with a single object; return None if the body has another value.

        Raises:
            Problem: 400 if the body is not JSON.
        """
        raw = yield from parse(body)
        return self.check_object(raw, struct)

    def check_batch(self, body: bytes, key: str, item_type: type[T]) -> Steps[list[T | None]]:
        """Parse and check a batch: an array of objects, or an object with the array under `key`.

        A valid item is kept as its object; the parsed JSON of an item is dropped before the next item.

        Raises:
            Problem: 400 if there is no array, an array of more than `MAX_BATCH` items, or no JSON.
        """
        array = yield from self._member(body, key)
        raw_items = elements(array, MAX_BATCH) if array else None
        if raw_items is None:
            message = f"Must be an array: send the array alone, or as `{key}` of an object"
            details = Faults([Fault(key, message, ErrorCode.INVALID_TYPE)])
            details.include(self.faults)
            raise Problem(HTTPStatus.BAD_REQUEST, VALIDATION_FAILED, details=details)
        if len(raw_items) > MAX_BATCH:
            message = f"Send at most {MAX_BATCH} items in a request"
            error, code = f"Max batch size is {MAX_BATCH}", ErrorCode.BATCH_TOO_LARGE
            raise Problem(HTTPStatus.BAD_REQUEST, error, code=code, message=message)
        items = list[T | None]()
        for index, raw in enumerate(raw_items):
            path, of_batch, self.faults = f"[{index}]", self.faults, Faults()
            if size(raw) > OBJECT_BODY_BYTES:
                message = f"Must be at most {OBJECT_BODY_BYTES // 1024} KiB"
                self.faults.append(Fault(path, message, ErrorCode.INVALID_LENGTH))
                items.append(None)
            else:
                items.append(self.check_object((yield from parse(raw, path)), item_type, path))
            if self.faults:
                self.item_faults[index] = self.faults
                of_batch.include(self.faults)
            self.faults = of_batch
            yield
        return items

    def check_ids(self, body: bytes, key: str, struct: type[T]) -> Steps[T | None]:
        """Parse and check an object whose only member is a list of ids under `key`.

        Raises:
            Problem: 400 if the body is not JSON.
        """
        array = yield from self._member(body, key)
        if first_byte(body) != b"{":
            elements(array or b"[]", 0)  # refuses a broken array
            message = f'Must be an object: {{"{key}": […]}}'
            self.faults.append(Fault("body", message, ErrorCode.INVALID_TYPE))
            return None
        if not array:
            return self.check_object({}, struct)
        try:
            # An array has at most one item more than commas, so the items of most arrays need not be counted.
            if array.count(b",") >= MAX_IDS or first_byte(array) != b"[":
                raw_ids = elements(array, MAX_IDS)
                yield
                if raw_ids is None:
                    raise ValueError("Must be an array")
                if len(raw_ids) > MAX_IDS:
                    raise ValueError(f"Must have at most {MAX_IDS} items")
            return self.check_object({key: parse_texts(array)}, struct)
        except ValueError as error:
            self.faults.append(self._fault(key, error, _fields(struct)[key].rules))  # type: ignore[arg-type]
            return None

    def _member(self, body: bytes, key: str) -> Steps[bytes]:
        """Return the member `key` of an object, unparsed, or the body itself, if it is an array.

        Return nothing for an object without the member, and for another value. Each other member is a fault.
        """
        first = first_byte(body)
        if first == b"{":
            return (yield from member(body, key, lambda name: self.faults.append(self._unknown(name, name, [key]))))
        if first != b"[":
            yield from parse(body)
        return body if first == b"[" else b""

    def check_object(self, raw: Any, struct: type[T], path: str = "") -> T | None:
        """Check an object.

        Args:
            raw: the value sent by the client.
            struct: the type of the object.
            path: of the object in the request; prefixed to the field of each fault.

        Returns:
            The object, with faulty fields UNSET or at the default; None if `raw` is not an object.
        """
        if not isinstance(raw, dict):
            several = (
                ": send several objects to the path that ends in /batch" if isinstance(raw, list) and not path else ""
            )
            self.faults.append(Fault(path or "body", f"Must be an object{several}", ErrorCode.INVALID_TYPE))
            return None
        known = _fields(struct)  # type: ignore[arg-type]  # a class is hashable
        values, faulty = self._values(raw, known, path)
        # A faulty parameter must not look like an omitted parameter to `faults`.
        unset = {info.name: msgspec.UNSET for info in faulty if info.required or self._is_query}
        value = struct(**values, **unset)
        # Query parameters are independent. In a body, a faulty field can cause a fault between fields: correcting the
        # field would remove both.
        if isinstance(value, Input) and (self._is_query or not faulty):
            between_fields = value.faults(self._requester)
            self.faults.extend(
                msgspec.structs.replace(fault, field=_join(path, fault.field)) for fault in between_fields
            )
        ignored = struct.read_only | struct.ignored if issubclass(struct, Input) else frozenset()
        unknown_names = [name for name in raw if name not in known and name not in ignored]
        elsewhere = struct.elsewhere if issubclass(struct, Input) else {}
        self.faults.extend(
            self._unknown(_join(path, name), name, known, elsewhere) for name in unknown_names[:MAX_FAULTS]
        )
        self.faults.count += len(unknown_names[MAX_FAULTS:])
        return value

    def _values(
        self, raw: Mapping[str, Any], fields: Mapping[str, "_Field"], path: str
    ) -> tuple[dict[str, Any], list[msgspec.structs.FieldInfo]]:
        """Return the values of the valid fields by attribute, and the faulty fields."""
        values, faulty = {}, []
        for name, field in fields.items():
            before = self.faults.count
            value: Any = None
            if name in raw:
                value = self._value(raw[name], field, _join(path, name))
            elif field.info.required:
                self.faults.append(Fault(_join(path, name), "Required", ErrorCode.REQUIRED))
            if self.faults.count > before:
                faulty.append(field.info)
            elif name in raw:
                values[field.info.name] = value
        return values, faulty

    def _value(self, raw: Any, field: "_Field", path: str) -> Any:
        rules = field.rules
        if raw is not None and rules.struct:
            return self.check_object(raw, rules.struct, path)
        if isinstance(raw, list) and rules.item:
            if rules.max_items is not None and len(raw) > rules.max_items:
                message = f"Must have at most {rules.max_items} items"
                self.faults.append(Fault(path, message, ErrorCode.OUT_OF_RANGE))
                return None
            return [self.check_object(item, rules.item, f"{path}[{index}]") for index, item in enumerate(raw)]
        try:
            if rules.parse and raw is not None:
                return rules.parse(raw, self._requester)
            value = field.convert(raw, strict=not self._is_query)
            if value is None and self._is_query:  # msgspec converts the text `null`
                raise ValueError("Invalid value")
            return rules.check(value, self._requester) if rules.check and value is not None else value
        except ValueError as error:  # includes msgspec.ValidationError
            self.faults.append(self._fault(path, error, rules))
            return None

    def _unknown(
        self, path: str, name: str, known: Collection[str], elsewhere: Mapping[str, str] | None = None
    ) -> Fault:
        kind, code = (
            ("parameter", ErrorCode.UNKNOWN_PARAMETER) if self._is_query else ("field", ErrorCode.UNKNOWN_FIELD)
        )
        if elsewhere and name in elsewhere:
            return Fault(path, f"Unknown {kind}: {elsewhere[name]}", code)
        return Fault(path, unknown(kind, name, known), code)

    def _fault(self, path: str, error: ValueError, rules: "_Rules") -> Fault:
        if isinstance(error, msgspec.ValidationError):
            fault = type_fault(error, rules.choices, is_query=self._is_query)
            return Fault(path + fault.path, fault.message, fault.code)
        return Fault(path, str(error), rules.code)


def list_names(struct: type[Any]) -> frozenset[str]:
    """Return the names of the fields with a list: in a query, such a parameter may be repeated."""
    return frozenset(name for name, field in _fields(struct).items() if field.rules.is_list)  # type: ignore[arg-type]


def has_field(struct: type[Any], name: str) -> bool:
    """Return whether a type has a field of this name in JSON."""
    return name in _fields(struct)  # type: ignore[arg-type]  # a class is hashable


class _Rules(msgspec.Struct, frozen=True):
    """The rules in a field's annotation, apart from the constraints of msgspec."""

    code: ErrorCode = ErrorCode.INVALID_VALUE
    check: Rule | None = None
    parse: Rule | None = None
    struct: type[Any] | None = None
    item: type[Any] | None = None
    max_items: int | None = None
    choices: tuple[str, ...] = ()
    is_list: bool = False


class _Field(NamedTuple):
    info: msgspec.structs.FieldInfo
    rules: _Rules
    holder: type[Any]
    """A type with the single field `value`, of the field's type: msgspec prepares only such types once."""

    def convert(self, raw: Any, *, strict: bool) -> Any:
        """Convert a value to the field's type.

        Raises:
            ValidationError: the value has another type, or breaks a constraint.
        """
        try:
            return msgspec.convert({"value": raw}, self.holder, strict=strict).value
        except msgspec.ValidationError:
            return msgspec.convert(raw, self.info.type, strict=strict)  # fails again, without `value` in its path


@cache
def _fields(struct: Any) -> Mapping[str, _Field]:
    """Return the fields of a type by their names in JSON."""
    return {
        info.encode_name: _Field(info, _rules(info.type), msgspec.defstruct("Holder", [("value", info.type)]))
        for info in msgspec.structs.fields(struct)
    }


def _rules(annotation: Any) -> _Rules:
    info = inspect.type_info(annotation)
    for part in info.types if isinstance(info, inspect.UnionType) else (info,):
        if isinstance(part, inspect.Metadata) and part.extra:
            return _Rules(
                part.extra.get("code", ErrorCode.INVALID_VALUE),
                part.extra.get("check"),
                part.extra.get("parse"),
                is_list=isinstance(part.type, inspect.ListType),
            )
        plain = part.type if isinstance(part, inspect.Metadata) else part
        chosen = plain.item_type if isinstance(plain, inspect.ListType) else plain
        if isinstance(chosen, inspect.LiteralType):
            return _Rules(choices=tuple(map(str, chosen.values)))
        if isinstance(part, inspect.StructType):
            return _Rules(struct=part.cls)
        if isinstance(part, inspect.ListType) and isinstance(part.item_type, inspect.StructType):
            return _Rules(item=part.item_type.cls, max_items=part.max_length)
    return _Rules()


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name
