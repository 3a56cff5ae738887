"""Rules of dynamic audiences (contract.md §4): their validation, and their conversion to and from expressions.

Pure functions. `infra/filters` knows the fields and operators, and makes the query.
"""

from collections.abc import Iterator, Sequence, Sized
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, get_args

import msgspec

from api.auth import Requester
from api.error_codes import ErrorCode
from api.errors import Fault
from api.validation import Input
from infra.filters import language
from infra.filters.conditions import (
    MAX_CLAUSES,
    MAX_FIELD_LENGTH,
    MEMBERSHIP,
    PRESENCE,
    TOO_MANY_CLAUSES,
    UNKNOWN_FIELD,
    Kind,
    Operator,
    Value,
    clauses_of,
    contained_fault,
    kind_of,
    range_fault,
    read_value,
)
from infra.filters.rules import groups
from infra.filters.stored_rules import expression
from infra.wire import time

MAX_RULES, MAX_VALUES = 50, 100
MAX_EXACT_INTEGER = 2**53
"""Every JSON parser reads smaller integers exactly."""


class Rule(Input, kw_only=True):
    """One condition on a consumer. Rules with the same `groupId` must all hold; a single group suffices.

    Rules without a `groupId` form a group together.
    """

    ignored: ClassVar[frozenset[str]] = frozenset({"position"})
    example: ClassVar[dict[str, Any]] = {"field": "totalOrderValue", "operator": "GREATER_THAN", "values": [1000]}

    field: Annotated[
        str,
        msgspec.Meta(
            max_length=MAX_FIELD_LENGTH,
            description="A field of the consumer, or `metadata.` with a key; further keys lead into objects.",
            examples=["totalOrderValue"],
        ),
    ]
    operator: Operator
    """The comparison. Null fulfils `NOT_EXISTS`, `NOT_EQUALS`, `NOT_CONTAINS` and `NOT_IN` alone."""
    values: Annotated[
        list[Value],
        msgspec.Meta(
            max_length=MAX_VALUES,
            description="None for `EXISTS` and `NOT_EXISTS`, one or more for `IN` and `NOT_IN`, two for `BETWEEN`, "
            "one for every other operator.",
        ),
    ] = msgspec.field(default_factory=list)
    group_id: (
        Annotated[str, msgspec.Meta(min_length=1, max_length=64, description="Any name for the rule's group.")] | None
    ) = None

    def faults(self, requester: Requester) -> Iterator[Fault]:
        del requester
        kind = kind_of(self.field)
        if kind is None:
            yield Fault("field", UNKNOWN_FIELD, ErrorCode.INVALID_RULE)
        elif self.operator not in kind.operators:
            supported = ", ".join(operator for operator in get_args(Operator) if operator in kind.operators)
            message = f"Operator {self.operator} is not supported for {self.field}: use {supported}"
            yield Fault("operator", message, ErrorCode.INVALID_RULE)
        elif fault := _wrong_number_of_values(self.operator, len(self.values)):
            yield Fault("values", fault, ErrorCode.INVALID_RULE)
        else:
            yield from self._value_faults(kind)

    def _value_faults(self, kind: Kind) -> Iterator[Fault]:
        converted = []
        for index, value in enumerate(self.values):
            try:
                converted.append(read_value(kind, self.operator, value))
            except ValueError as error:
                yield Fault(f"values[{index}]", str(error), ErrorCode.INVALID_RULE)
        if len(converted) == len(self.values):
            if fault := range_fault(self.operator, converted):
                yield Fault("values", fault, ErrorCode.INVALID_RULE)
            if fault := contained_fault(self.operator, converted):
                yield Fault("values[0]", fault, ErrorCode.INVALID_RULE)


def rules_of_filter(text: str) -> list[Rule]:
    """Convert a filter to rules.

    Raises:
        ValueError: the text is not a filter, or cannot be expressed as rules; the message is for the client.
    """
    groups_of_conditions = groups(language.parse(text), MAX_RULES)
    return [
        Rule(
            field=condition.field,
            operator=condition.operator,
            values=[_rule_value(value) for value in condition.values],
            group_id=str(number) if len(groups_of_conditions) > 1 else None,
        )
        for number, group in enumerate(groups_of_conditions, start=1)
        for condition in group
    ]


def clauses_of_rules(rules: Sequence[Rule]) -> int:
    """Return an upper bound for the clauses of the rules' query."""
    return clauses_of(expression(rules))


def audience_filter_faults(text: str | None, rules: Sequence[Rule] | None) -> Iterator[Fault]:
    """Return the faults of a filter sent in place of rules."""
    if text is None:
        return
    if rules is not None:
        yield Fault("filter", "Cannot be combined with rules", ErrorCode.NOT_COMBINABLE)
    try:
        if clauses_of_rules(rules_of_filter(text)) > MAX_CLAUSES:
            raise ValueError(TOO_MANY_CLAUSES)
    except language.FilterError as error:
        yield from (Fault("filter", fault, ErrorCode.INVALID_FILTER) for fault in error.faults)
    except ValueError as error:
        yield Fault("filter", str(error), ErrorCode.INVALID_FILTER)


def rules_faults(rules: Sequence[Rule] | None) -> Iterator[Fault]:
    """Return the faults of all rules together; each rule must be valid by itself."""
    if rules and clauses_of_rules(rules) > MAX_CLAUSES:
        yield Fault("rules", TOO_MANY_CLAUSES, ErrorCode.OUT_OF_RANGE)


def type_faults(rules: Sized | None, audience_type: str) -> Iterator[Fault]:
    """Return the faults between an audience's type and rules (or filter)."""
    if audience_type == "DYNAMIC" and not rules:
        yield Fault("rules", "Required for a DYNAMIC audience", ErrorCode.REQUIRED)
    if audience_type != "DYNAMIC" and rules is not None:
        yield Fault("rules", "Only a DYNAMIC audience can have rules", ErrorCode.NOT_COMBINABLE)


def _rule_value(value: Any) -> Value:
    """Convert a condition's value to a rule's. A number becomes text unless exact in JSON."""
    if isinstance(value, datetime):
        return time(value)
    if isinstance(value, Decimal):
        number = int(value) if value == int(value) else float(value)
        return number if Decimal(repr(number)) == value and abs(number) < MAX_EXACT_INTEGER else str(value)
    unchanged: Value = value
    return unchanged


def _wrong_number_of_values(operator: str, count: int) -> str | None:
    if operator in PRESENCE:
        return f"{operator} takes no values" if count else None
    if operator in MEMBERSHIP:
        return None if count else f"{operator} takes one value or more"
    expected = 2 if operator == "BETWEEN" else 1
    return None if count == expected else f"{operator} takes {expected} value{'s' * (expected > 1)}"
