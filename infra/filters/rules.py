"""From an expression to the groups of conditions that say the same: what an audience's rules can hold."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from infra.filters.conditions import (
    FIELDS,
    METADATA,
    NUMBER,
    OPPOSITE,
    ORDERED,
    All,
    Any_,
    Condition,
    Expression,
    Not,
    Operator,
)

NEGATED: dict[Operator, Operator] = {positive: negative for negative, positive in OPPOSITE.items()} | OPPOSITE
COMPLEMENTS: dict[Operator, Operator] = {
    "GREATER_THAN": "LESS_THAN_OR_EQUAL",
    "GREATER_THAN_OR_EQUAL": "LESS_THAN",
    "LESS_THAN": "GREATER_THAN_OR_EQUAL",
    "LESS_THAN_OR_EQUAL": "GREATER_THAN",
}
NEVER_NULL = frozenset({"createdAt", *(field for field, kind in FIELDS.items() if kind is NUMBER)})
ONE_OF: dict[Operator, Operator] = {"EQUALS": "IN", "NOT_EQUALS": "NOT_IN"}

Group = tuple[Condition, ...]


class TooManyRulesError(ValueError):
    """The expression needs more conditions than there may be."""


def groups(expression: Expression, most: int) -> list[Group]:
    """Groups of conditions of which one must hold whole, for the expression to hold.

    Raises:
        TooManyRulesError: they are more than `most` conditions.
        ValueError: it is not a matter of any conditions; the message is for the sender.
    """
    found = _groups(_plain(expression), most)
    return _within(found, most)


def _plain(expression: Expression, *, negated: bool = False) -> Expression:
    """The same without `Not`."""
    match expression:
        case Not(part):
            return _plain(part, negated=not negated)
        case All(parts) | Any_(parts):
            inner = [_plain(part, negated=negated) for part in parts]
            is_any = isinstance(expression, Any_) != negated
            return Any_(_merged(inner, "EQUALS")) if is_any else All(_merged(inner, "NOT_EQUALS"))
        case Condition():
            return _complement(expression) if negated else expression


def _complement(condition: Condition) -> Expression:
    field, operator, values = condition
    if operator in NEGATED:
        return Condition(field, NEGATED[operator], values)
    assert operator in ORDERED
    if field.startswith(METADATA):
        raise ValueError(f"What does not compare with a number in {field} cannot be said by rules")
    if operator == "BETWEEN":
        outside = [Condition(field, "LESS_THAN", values[:1]), Condition(field, "GREATER_THAN", values[1:])]
    else:
        outside = [Condition(field, COMPLEMENTS[operator], values)]
    if field not in NEVER_NULL:
        outside.append(Condition(field, "NOT_EXISTS"))
    return Any_(outside) if len(outside) > 1 else outside[0]


def _merged(parts: Sequence[Expression], operator: Operator) -> list[Expression]:
    """Conditions of one field that are one by their nature: one of these values, or none of these."""
    values: dict[str, list[object]] = {}
    rest: list[Expression] = []
    for part in parts:
        if isinstance(part, Condition) and part.operator in {operator, ONE_OF[operator]}:
            values.setdefault(part.field, []).extend(part.values)
        else:
            rest.append(part)
    return [
        *(Condition(field, ONE_OF[operator] if len(found) > 1 else operator, found) for field, found in values.items()),
        *rest,
    ]


def _groups(expression: Expression, most: int) -> Iterator[Group]:
    match expression:
        case Condition():
            yield (expression,)
        case Any_(parts):
            for part in parts:
                yield from _groups(part, most)
        case All(parts):
            each = [_within(_groups(part, most), most) for part in parts]
            for chosen in product(*each):
                yield tuple(condition for group in chosen for condition in group)


def _within(found: Iterable[Group], most: int) -> list[Group]:
    kept: list[Group] = []
    number = 0
    for group in found:
        number += len(group)
        if number > most:
            raise TooManyRulesError(f"It takes more than {most} rules to say this")
        kept.append(group)
    return kept
