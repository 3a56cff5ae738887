"""Convert an expression to groups of conditions, the form of an audience's rules.

The groups are the expression's disjunctive normal form: the expression holds if all conditions of any group hold. The
conversion takes three steps:

1. `_without_not` moves every `Not` down to the conditions, and replaces each by the opposite operator.
2. The same step merges conditions of one field: `email:a OR email:b` becomes a single IN, to need fewer rules.
3. `_groups` multiplies out: an AND of ORs becomes a group for each combination.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from infra.filters.conditions import (
    FIELDS,
    METADATA,
    NUMBER,
    ORDERED,
    POSITIVE,
    AllOf,
    AnyOf,
    Condition,
    Expression,
    Not,
    Operator,
)

OPPOSITE: dict[Operator, Operator] = {positive: negative for negative, positive in POSITIVE.items()} | POSITIVE
OPPOSITE_COMPARISON: dict[Operator, Operator] = {
    "GREATER_THAN": "LESS_THAN_OR_EQUAL",
    "GREATER_THAN_OR_EQUAL": "LESS_THAN",
    "LESS_THAN": "GREATER_THAN_OR_EQUAL",
    "LESS_THAN_OR_EQUAL": "GREATER_THAN",
}
"""The comparison for all remaining values except null."""
NEVER_NULL = frozenset({"createdAt", "updatedAt", *(field for field, kind in FIELDS.items() if kind is NUMBER)})
LIST_OPERATOR: dict[Operator, Operator] = {"EQUALS": "IN", "NOT_EQUALS": "NOT_IN"}

Group = tuple[Condition, ...]


class TooManyRulesError(ValueError):
    """The expression needs more conditions than the limit."""


def groups(expression: Expression, limit: int) -> list[Group]:
    """Return the groups of an expression.

    Args:
        expression: the conditions.
        limit: maximum number of conditions in all groups together.

    Raises:
        TooManyRulesError: the groups have more conditions than `limit`.
        ValueError: the expression has no such form; the message is for the client.
    """
    return _limited(_groups(_without_not(expression), limit), limit)


def _without_not(expression: Expression, *, negated: bool = False) -> Expression:
    """Return an equivalent expression without `Not`, with the conditions of each field merged."""
    match expression:
        case Not(part):
            return _without_not(part, negated=not negated)
        case AllOf(parts) | AnyOf(parts):
            inner = [_without_not(part, negated=negated) for part in parts]
            is_any = isinstance(expression, AnyOf) != negated
            return AnyOf(_merged(inner, "EQUALS")) if is_any else AllOf(_merged(inner, "NOT_EQUALS"))
        case Condition():
            return _negation(expression) if negated else expression


def _negation(condition: Condition) -> Expression:
    field, operator, values = condition
    if operator in OPPOSITE:
        return Condition(field, OPPOSITE[operator], values)
    assert operator in ORDERED
    if field.startswith(METADATA):
        raise ValueError(f"NOT of a comparison on {field} cannot be expressed as rules")
    if operator == "BETWEEN":
        outside = [Condition(field, "LESS_THAN", values[:1]), Condition(field, "GREATER_THAN", values[1:])]
    else:
        outside = [Condition(field, OPPOSITE_COMPARISON[operator], values)]
    if field not in NEVER_NULL:
        outside.append(Condition(field, "NOT_EXISTS"))
    return AnyOf(outside) if len(outside) > 1 else outside[0]


def _merged(parts: Sequence[Expression], operator: Operator) -> list[Expression]:
    """Merge a field's conditions with `operator`, or the list operator, into a single condition with all values."""
    values: dict[str, list[object]] = {}
    others: list[Expression] = []
    for part in parts:
        if isinstance(part, Condition) and part.operator in {operator, LIST_OPERATOR[operator]}:
            values.setdefault(part.field, []).extend(part.values)
        else:
            others.append(part)
    merged = [
        Condition(field, LIST_OPERATOR[operator] if len(of_field) > 1 else operator, of_field)
        for field, of_field in values.items()
    ]
    return [*merged, *others]


def _groups(expression: Expression, limit: int) -> Iterator[Group]:
    match expression:
        case Condition():
            yield (expression,)
        case AnyOf(parts):
            for part in parts:
                yield from _groups(part, limit)
        case AllOf(parts):
            groups_of_parts = [_limited(_groups(part, limit), limit) for part in parts]
            for combination in product(*groups_of_parts):
                yield tuple(condition for group in combination for condition in group)


def _limited(iterator: Iterable[Group], limit: int) -> list[Group]:
    """Collect groups; stop above the limit, because there may be millions."""
    collected: list[Group] = []
    conditions = 0
    for group in iterator:
        conditions += len(group)
        if conditions > limit:
            raise TooManyRulesError(f"Needs more than {limit} rules: use fewer conditions")
        collected.append(group)
    return collected
