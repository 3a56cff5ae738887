"""The rules of dynamic audiences: what makes sense for which field (contract.md §4). Pure functions."""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from api.auth import Caller
from api.errors import Fault
from api.validation import Body
from infra import fields

Operator = Literal[
    "EQUALS",
    "NOT_EQUALS",
    "GREATER_THAN",
    "GREATER_THAN_OR_EQUAL",
    "LESS_THAN",
    "LESS_THAN_OR_EQUAL",
    "CONTAINS",
    "NOT_CONTAINS",
    "IN",
    "NOT_IN",
    "BETWEEN",
    "EXISTS",
    "NOT_EXISTS",
]
Value = str | int | float | bool

ONE = frozenset({"EQUALS", "NOT_EQUALS"})
COMPARING = frozenset({"GREATER_THAN", "GREATER_THAN_OR_EQUAL", "LESS_THAN", "LESS_THAN_OR_EQUAL"})
CONTAINING = frozenset({"CONTAINS", "NOT_CONTAINS"})
MANY = frozenset({"IN", "NOT_IN"})
NONE = frozenset({"EXISTS", "NOT_EXISTS"})
ORDERED = COMPARING | {"BETWEEN"}
MAX_RULES, MAX_VALUES, MAX_VALUE_LENGTH = 50, 100, 255
METADATA = "metadata."
MAX_FIELD_LENGTH = len(METADATA) + fields.METADATA_DEPTH * (fields.METADATA_KEY_LENGTH + 1)


def _text(value: Value) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("Expected text")
    return value


def _number(value: Value) -> Decimal:
    if isinstance(value, bool):
        raise ValueError("Expected a number")
    if not fields.DECIMAL.fullmatch(text := str(value)):
        raise ValueError("Expected a number")
    return Decimal(text)


def _moment(value: Value) -> Any:
    return fields.timestamp(_text(value))


def _anything(value: Value) -> Value:
    return value


class Kind(NamedTuple):
    """How values of a field are read, and which operators suit it."""

    read: Callable[[Value], Any]
    operators: frozenset[str]


TEXT = Kind(_text, ONE | CONTAINING | MANY | NONE)
NUMBER = Kind(_number, ONE | ORDERED | MANY | NONE)
MOMENT = Kind(_moment, ONE | ORDERED | MANY | NONE)
ANYTHING = Kind(_anything, ONE | ORDERED | CONTAINING | MANY | NONE)

FIELDS = {
    "email": TEXT,
    "phone": TEXT,
    "fullName": TEXT,
    "externalId": TEXT,
    "totalOrders": NUMBER,
    "totalOrderValue": NUMBER,
    "lastOrderAt": MOMENT,
    "createdAt": MOMENT,
}


class Rule(Body, kw_only=True):
    """One condition. Rules of one group must all hold; any group suffices."""

    field: Annotated[str, msgspec.Meta(max_length=MAX_FIELD_LENGTH, examples=["totalOrderValue"])]
    operator: Operator
    values: Annotated[list[Value], msgspec.Meta(max_length=MAX_VALUES)] = msgspec.field(default_factory=list)
    group_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None

    def faults(self, caller: Caller) -> Iterator[Fault]:
        del caller
        kind = kind_of(self.field)
        if kind is None:
            yield Fault("field", f"Unknown field; there are {', '.join(FIELDS)} and {METADATA}*")
        elif self.operator not in kind.operators:
            yield Fault("operator", f"{self.operator} makes no sense for {self.field}")
        elif problem := _number_of_values(self.operator, len(self.values)):
            yield Fault("values", problem)
        else:
            yield from self._values(_reading(kind, self.operator))

    def _values(self, read: Callable[[Value], Any]) -> Iterator[Fault]:
        found = []
        for place, value in enumerate(self.values):
            try:
                if isinstance(value, str) and len(value) > MAX_VALUE_LENGTH:
                    raise ValueError(f"Must be at most {MAX_VALUE_LENGTH} characters")
                found.append(read(value))
            except ValueError as error:
                yield Fault(f"values[{place}]", str(error))
        if self.operator == "BETWEEN" and len(found) == 2 and found[0] > found[1]:  # noqa: PLR2004 (a range's ends)
            yield Fault("values", "The first must not exceed the second")


def kind_of(field: str) -> Kind | None:
    """What a field's values are; None if there is no such field."""
    if field.startswith(METADATA):
        path = field.removeprefix(METADATA).split(".")
        return ANYTHING if all(path) and len(path) <= fields.METADATA_DEPTH else None
    return FIELDS.get(field)


def _reading(kind: Kind, operator: str) -> Callable[[Value], Any]:
    """In metadata, what the operator needs decides: numbers are compared, text is contained."""
    if kind is ANYTHING and operator in ORDERED:
        return _number
    if kind is ANYTHING and operator in CONTAINING:
        return _text
    return kind.read


def _number_of_values(operator: str, given: int) -> str | None:
    if operator in NONE:
        return "Must be empty" if given else None
    if operator in MANY:
        return None if given else "Must have a value at least"
    wanted = 2 if operator == "BETWEEN" else 1
    return None if given == wanted else f"Must have {wanted} value{'s' * (wanted > 1)}"


def problems(rules: Sequence[Rule] | None, audience_type: str) -> Iterator[Fault]:
    """Faults between an audience's type and its rules."""
    if audience_type == "DYNAMIC" and not rules:
        yield Fault("rules", "A dynamic audience has rules")
    if audience_type != "DYNAMIC" and rules is not None:
        yield Fault("rules", "Only a dynamic audience has rules")
