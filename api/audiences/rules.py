"""The rules of dynamic audiences (contract.md §4): what may be said, and the expression they are. Pure functions."""

from collections.abc import Iterator, Sequence, Sized
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec

from api.auth import Caller
from api.errors import Fault
from api.validation import Input
from infra.filters import language
from infra.filters.conditions import (
    MANY,
    MAX_FIELD_LENGTH,
    MOST_CLAUSES,
    NONE,
    TOO_MUCH,
    UNKNOWN_FIELD,
    All,
    Any_,
    Condition,
    Expression,
    Kind,
    Operator,
    Value,
    clauses_of,
    in_order,
    kind_of,
    read_value,
)
from infra.filters.rules import groups
from infra.wire import time

MAX_RULES, MAX_VALUES = 50, 100
EXACT = 2**53
"""Whole numbers below are what they are in every reader of JSON."""


class Rule(Input, kw_only=True):
    """One condition. Rules of one group must all hold; any group suffices."""

    field: Annotated[str, msgspec.Meta(max_length=MAX_FIELD_LENGTH, examples=["totalOrderValue"])]
    operator: Operator
    values: Annotated[list[Value], msgspec.Meta(max_length=MAX_VALUES)] = msgspec.field(default_factory=list)
    group_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None

    def faults(self, caller: Caller) -> Iterator[Fault]:
        del caller
        kind = kind_of(self.field)
        if kind is None:
            yield Fault("field", UNKNOWN_FIELD)
        elif self.operator not in kind.operators:
            yield Fault("operator", f"{self.operator} makes no sense for {self.field}")
        elif problem := _number_of_values(self.operator, len(self.values)):
            yield Fault("values", problem)
        else:
            yield from self._values(kind)

    def _values(self, kind: Kind) -> Iterator[Fault]:
        found = []
        for place, value in enumerate(self.values):
            try:
                found.append(read_value(kind, self.operator, value))
            except ValueError as error:
                yield Fault(f"values[{place}]", str(error))
        if len(found) == len(self.values) and not in_order(self.operator, found):
            yield Fault("values", "The first must not exceed the second")

    def condition(self) -> Condition:
        """What it says; it has no faults."""
        kind = kind_of(self.field)
        assert kind
        return Condition(self.field, self.operator, [read_value(kind, self.operator, value) for value in self.values])


def expression(rules: Sequence[Rule]) -> Expression:
    """What they say together: those of one group must all hold, and any group suffices. All without one are a group."""
    groups: dict[str | None, list[Expression]] = {}
    for rule in rules:
        groups.setdefault(rule.group_id, []).append(rule.condition())
    return Any_([All(conditions) for conditions in groups.values()])


def rules_of(text: str) -> list[Rule]:
    """The rules that say what a filter does.

    Raises:
        ValueError: it is no filter, or more than rules can say.
    """
    found = groups(language.parse(text), MAX_RULES)
    return [
        Rule(
            field=condition.field,
            operator=condition.operator,
            values=[_said(value) for value in condition.values],
            group_id=str(number) if len(found) > 1 else None,
        )
        for number, group in enumerate(found, start=1)
        for condition in group
    ]


def clauses(rules: Sequence[Rule]) -> int:
    """How many clauses of a query they become, at the most."""
    return sum(clauses_of(rule.condition()) for rule in rules)


def filter_problems(text: str | None, rules: Sequence[Rule] | None) -> Iterator[Fault]:
    """Faults of a filter that stands for an audience's rules."""
    if text is None:
        return
    if rules is not None:
        yield Fault("filter", "Cannot be combined with rules")
    try:
        if clauses(rules_of(text)) > MOST_CLAUSES:
            raise ValueError(TOO_MUCH)
    except language.FilterError as error:
        yield from (Fault("filter", fault) for fault in error.faults)
    except ValueError as error:
        yield Fault("filter", str(error))


def _said(value: Any) -> Value:
    """A condition's value as a rule's; a number that JSON's may not hold exactly as text."""
    if isinstance(value, datetime):
        return time(value)
    if isinstance(value, Decimal):
        number = int(value) if value == int(value) else float(value)
        return number if Decimal(repr(number)) == value and abs(number) < EXACT else str(value)
    said: Value = value
    return said


def _number_of_values(operator: str, given: int) -> str | None:
    if operator in NONE:
        return "Must be empty" if given else None
    if operator in MANY:
        return None if given else "Must have a value at least"
    wanted = 2 if operator == "BETWEEN" else 1
    return None if given == wanted else f"Must have {wanted} value{'s' * (wanted > 1)}"


def rules_problems(rules: Sequence[Rule] | None) -> Iterator[Fault]:
    """Faults of rules that are sound one by one."""
    if rules and clauses(rules) > MOST_CLAUSES:
        yield Fault("rules", TOO_MUCH)


def problems(rules: Sized | None, audience_type: str) -> Iterator[Fault]:
    """Faults between an audience's type and its rules."""
    if audience_type == "DYNAMIC" and not rules:
        yield Fault("rules", "A dynamic audience has rules")
    if audience_type != "DYNAMIC" and rules is not None:
        yield Fault("rules", "Only a dynamic audience has rules")
