"""Rules of dynamic audiences as they are stored, and their conversion to an expression.

The API checks rules before it stores them (`api/audiences/rules.py`), so stored rules have no faults.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from infra.filters.conditions import AllOf, AnyOf, Condition, Expression, Operator, Value, kind_of, read_value


class ConditionRule(Protocol):
    """A rule without faults: of a request, or stored."""

    @property
    def field(self) -> str: ...
    @property
    def operator(self) -> Operator: ...
    @property
    def values(self) -> Sequence[Value]: ...
    @property
    def group_id(self) -> str | None: ...


class StoredRule(msgspec.Struct, frozen=True, rename="camel"):
    """A rule in the column `audiences.rules`."""

    field: str
    operator: Operator
    values: list[Value] = []
    group_id: str | None = None


decode = msgspec.json.Decoder(list[StoredRule]).decode


def expression(rules: Iterable[ConditionRule]) -> Expression:
    """Return the expression of an audience's rules."""
    by_group: dict[str | None, list[Expression]] = {}
    for rule in rules:
        by_group.setdefault(rule.group_id, []).append(_condition(rule))
    return AnyOf([AllOf(conditions) for conditions in by_group.values()])


def _condition(rule: ConditionRule) -> Condition:
    kind = kind_of(rule.field)
    assert kind
    return Condition(rule.field, rule.operator, [read_value(kind, rule.operator, value) for value in rule.values])
