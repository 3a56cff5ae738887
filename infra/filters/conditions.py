"""Conditions on a consumer: fields, operators, and expressions, which combine conditions.

Rules of audiences (contract.md §4, `api/audiences/rules.py`) and the filter language (`language.py`) both produce an
`Expression`, the input of `clauses.py`. So every filter can be an audience, within the limit of rules.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias, Union

from infra import fields
from infra.index.folding import plain
from infra.index.terms import CODE_LENGTH, MAX_VALUE_LENGTH, date

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

EQUALITY = frozenset({"EQUALS", "NOT_EQUALS"})
COMPARISON = frozenset({"GREATER_THAN", "GREATER_THAN_OR_EQUAL", "LESS_THAN", "LESS_THAN_OR_EQUAL"})
CONTAINMENT = frozenset({"CONTAINS", "NOT_CONTAINS"})
MEMBERSHIP = frozenset({"IN", "NOT_IN"})
PRESENCE = frozenset({"EXISTS", "NOT_EXISTS"})
ORDERED = COMPARISON | {"BETWEEN"}
POSITIVE: dict[Operator, Operator] = {
    "NOT_EQUALS": "EQUALS",
    "NOT_CONTAINS": "CONTAINS",
    "NOT_IN": "IN",
    "NOT_EXISTS": "EXISTS",
}
"""Negative operator → positive operator. The negative holds wherever the positive does not, so also for null."""
METADATA = "metadata."
MAX_CONTAINED = 300
"""Characters of a CONTAINS value after folding, which can triple the length. OpenSearch refuses to compile longer
repetitive patterns: a single repeated letter fails from 315 on."""
MAX_CLAUSES = 900
"""Clauses of the conditions in a query. OpenSearch allows 1,024 clauses, and allocates 10 KB for each character of a
CONTAINS value."""
SCAN_LENGTH, SCAN_CLAUSES = 3, 18
"""A CONTAINS value with fewer characters has no trigram of its own: OpenSearch reads the field of every consumer. The
50 conditions of a filter, or rules of an audience, may all be such."""
VALUES_PER_CLAUSE = 10
"""The values of a list are looked up together."""
TOO_MANY_CLAUSES = "Too much text in CONTAINS (~): use fewer or shorter values"
MAX_FIELD_LENGTH = len(METADATA) + fields.METADATA_DEPTH * (fields.METADATA_KEY_LENGTH + 1)


class Condition(NamedTuple):
    """A condition on a field. The values have the field's type: str, Decimal or datetime; in metadata also bool."""

    field: str
    operator: Operator
    values: Sequence[Any] = ()


def clause_count(condition: Condition) -> int:
    """Return the clauses of a condition's query, or more if the query is slower than other queries of that size.

    CONTAINS has a clause for each trigram of characters.
    """
    if condition.operator not in CONTAINMENT:
        return 3 + len(condition.values) // VALUES_PER_CLAUSE
    folded = plain(condition.values[0])
    if len(folded) < SCAN_LENGTH:
        return SCAN_CLAUSES
    if len(folded) > MAX_CONTAINED:
        return MAX_CLAUSES + 1
    return CODE_LENGTH + len(folded.encode("utf-16-le")) // 2 + 3


class AllOf(NamedTuple):
    parts: Sequence["Expression"]


class AnyOf(NamedTuple):
    parts: Sequence["Expression"]


class Not(NamedTuple):
    part: "Expression"


Expression: TypeAlias = Union[Condition, AllOf, AnyOf, Not]  # noqa: UP007 (recursive)


def clauses_of(expression: Expression) -> int:
    """Return the sum of `clause_count` of all conditions."""
    match expression:
        case AllOf(parts) | AnyOf(parts):
            return sum(map(clauses_of, parts))
        case Not(part):
            return clauses_of(part)
        case Condition():
            return clause_count(expression)


def _text(value: Value) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("Must be a text that is not empty")
    return value


def _number(value: Value) -> Decimal:
    if isinstance(value, bool) or not fields.DECIMAL.fullmatch(text := str(value)):
        raise ValueError("Must be a number")
    number = Decimal(text)
    # A rule may store the number as text, which must be accepted again on reading.
    written = str(number)
    if isinstance(value, str) and (len(written) > MAX_VALUE_LENGTH or not fields.DECIMAL.fullmatch(written)):
        raise ValueError("Must be a number with fewer digits")
    return number


def _moment(value: Value) -> Any:
    return fields.timestamp(_text(value))


def _number_or_date(value: Value) -> Any:
    if isinstance(value, str) and (moment := date(value)):
        return moment
    try:
        return _number(value)
    except ValueError as error:
        raise ValueError(f"{error}, or a date such as 1990-12-31, or a time in RFC 3339") from None


def _metadata_value(value: Value) -> Any:
    return value if isinstance(value, str | bool) else _number(value)


class Kind(NamedTuple):
    """The type of a field: how to read values, and the supported operators."""

    read: Callable[[Value], Any]
    operators: frozenset[str]


TEXT = Kind(_text, EQUALITY | CONTAINMENT | MEMBERSHIP | PRESENCE)
NUMBER = Kind(_number, EQUALITY | ORDERED | MEMBERSHIP | PRESENCE)
MOMENT = Kind(_moment, EQUALITY | ORDERED | MEMBERSHIP | PRESENCE)
METADATA_VALUE = Kind(_metadata_value, EQUALITY | ORDERED | CONTAINMENT | MEMBERSHIP | PRESENCE)

FIELDS = {
    **{field.name: TEXT for field in fields.CONSUMER_FIELDS},
    "totalOrders": NUMBER,
    "totalOrderValue": NUMBER,
    "lastOrderAt": MOMENT,
    "createdAt": MOMENT,
    "updatedAt": MOMENT,
}
UNKNOWN_FIELD = f"Unknown field: use {', '.join(FIELDS)} or {METADATA}<key>"


def kind_of(field: str) -> Kind | None:
    """Return the kind of a field; None for an unknown field."""
    if field.startswith(METADATA):
        path = field.removeprefix(METADATA).split(".")
        is_valid = all(path) and len(path) <= fields.METADATA_DEPTH and len(field) <= MAX_FIELD_LENGTH
        return METADATA_VALUE if is_valid else None
    return FIELDS.get(field)


def read_value(kind: Kind, operator: str, value: Value) -> Any:
    """Convert a condition's value to the field's type.

    Raises:
        ValueError: the value does not fit; the message is for the client.
    """
    if isinstance(value, str) and len(value) > MAX_VALUE_LENGTH:
        raise ValueError(f"Must be at most {MAX_VALUE_LENGTH} characters")
    # In metadata the operator decides: comparisons need numbers or dates, CONTAINS needs text.
    if kind is METADATA_VALUE and operator in ORDERED:
        return _number_or_date(value)
    if kind is METADATA_VALUE and operator in CONTAINMENT:
        return _text(value)
    return kind.read(value)


def is_ignored(text: str) -> bool:
    """Return whether a text has only characters that CONTAINS ignores, such as accents, besides white space."""
    folded = plain(text)
    return not folded or (folded.isspace() and not text.isspace())


def contained_fault(operator: str, values: Sequence[Any]) -> str | None:
    """Return the fault of a CONTAINS value, which would be part of every text; None for all other operators.

    A rule stored before this check may have the fault: it matches nobody.
    """
    if operator in CONTAINMENT and is_ignored(values[0]):
        return "Must have a character that CONTAINS does not ignore, such as a letter, a digit or a punctuation mark"
    return None


def range_fault(operator: str, values: Sequence[Any]) -> str | None:
    """Return the fault between the values of BETWEEN; None for all other operators."""
    if operator != "BETWEEN":
        return None
    if type(values[0]) is not type(values[1]):
        return "Both ends of the range must be numbers, or both must be dates"
    return "The start of the range must not exceed its end" if values[0] > values[1] else None
