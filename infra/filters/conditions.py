"""Conditions on a consumer: which fields and operators there are, and how conditions are put together.

Rules of audiences (contract.md §4) and the filter language both become an `Expression`, and `clauses` makes a query of
it: whatever can be filtered by can be an audience.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias, Union

from infra import fields
from infra.index.terms import CODE, LONGEST_VALUE, fold

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
OPPOSITE: dict[Operator, Operator] = {
    "NOT_EQUALS": "EQUALS",
    "NOT_CONTAINS": "CONTAINS",
    "NOT_IN": "IN",
    "NOT_EXISTS": "EXISTS",
}
"""Of those that hold where another does not, null or not."""
METADATA = "metadata."
LONGEST_CONTAINED = 300
"""Characters, once case is folded, which can make three of one. The pattern of a longer one that repeats itself takes
OpenSearch more effort to prepare than it allows: of one letter from 315 on."""
MOST_CLAUSES = 900
"""Of one query. OpenSearch takes 1,024; and of each character that is looked for inside text it also makes 10 KB."""
TOO_MUCH = "There is too much text to be contained: it takes shorter or fewer ones"
MAX_FIELD_LENGTH = len(METADATA) + fields.METADATA_DEPTH * (fields.METADATA_KEY_LENGTH + 1)


class Condition(NamedTuple):
    """Of one field. `values` are what the field's kind reads: text, Decimal, datetime; in metadata also bool."""

    field: str
    operator: Operator
    values: Sequence[Any] = ()


def clauses_of(condition: Condition) -> int:
    """How many clauses of a query it becomes, at the most: inside text, one for every three neighbouring characters."""
    if condition.operator not in CONTAINING:
        return 3
    folded = fold(condition.values[0])
    if len(folded) > LONGEST_CONTAINED:
        return MOST_CLAUSES + 1
    return CODE + len(folded.encode("utf-16-le")) // 2 + 3


class All(NamedTuple):
    parts: Sequence["Expression"]


class Any_(NamedTuple):  # noqa: N801 (the other name is taken by typing)
    parts: Sequence["Expression"]


class Not(NamedTuple):
    part: "Expression"


Expression: TypeAlias = Union[Condition, All, Any_, Not]  # noqa: UP007 (it is recursive)


def _text(value: Value) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("Expected text")
    return value


def _number(value: Value) -> Decimal:
    if isinstance(value, bool) or not fields.DECIMAL.fullmatch(text := str(value)):
        raise ValueError("Expected a number")
    number = Decimal(text)
    # A rule may keep it as text, which must be a number again when it is read.
    written = str(number)
    if isinstance(value, str) and (len(written) > LONGEST_VALUE or not fields.DECIMAL.fullmatch(written)):
        raise ValueError("Expected a number of fewer digits")
    return number


def _moment(value: Value) -> Any:
    return fields.timestamp(_text(value))


def _anything(value: Value) -> Any:
    return value if isinstance(value, str | bool) else _number(value)


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
UNKNOWN_FIELD = f"Unknown field; there are {', '.join(FIELDS)} and {METADATA}*"


def kind_of(field: str) -> Kind | None:
    """What a field's values are; None if there is no such field."""
    if field.startswith(METADATA):
        path = field.removeprefix(METADATA).split(".")
        known = all(path) and len(path) <= fields.METADATA_DEPTH and len(field) <= MAX_FIELD_LENGTH
        return ANYTHING if known else None
    return FIELDS.get(field)


def read_value(kind: Kind, operator: str, value: Value) -> Any:
    """A condition's value as its field has it.

    Raises:
        ValueError: a sentence for the sender.
    """
    if isinstance(value, str) and len(value) > LONGEST_VALUE:
        raise ValueError(f"Must be at most {LONGEST_VALUE} characters")
    # In metadata, what the operator needs decides: numbers are compared, text is contained.
    if kind is ANYTHING and operator in ORDERED:
        return _number(value)
    if kind is ANYTHING and operator in CONTAINING:
        return _text(value)
    return kind.read(value)


def in_order(operator: str, values: Sequence[Any]) -> bool:
    """Whether a range's ends are."""
    return operator != "BETWEEN" or values[0] <= values[1]
