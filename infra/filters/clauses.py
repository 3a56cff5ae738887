"""From an expression to a clause of OpenSearch. Pure functions; the one place that knows what conditions mean there."""

from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

from infra import fields
from infra.filters.conditions import FIELDS, METADATA, MOMENT, NUMBER, OPPOSITE, All, Any_, Condition, Expression, Not
from infra.index.documents import MONEY_UNIT
from infra.index.terms import LONGEST_VALUE, fold, number_term, path_code, text_term
from infra.wire import time

Clause = dict[str, Any]

NOTHING: Clause = {"match_none": {}}
EVERYTHING: Clause = {"match_all": {}}
UNITS = {"totalOrders": 1, "totalOrderValue": MONEY_UNIT}
LARGEST = {"totalOrders": 2**31 - 1, "totalOrderValue": 10**18}
"""Above all there can be, and within what the index's integers hold."""
EXACT = Context(prec=2 * LONGEST_VALUE)
BOUNDS = {"GREATER_THAN": "gt", "GREATER_THAN_OR_EQUAL": "gte", "LESS_THAN": "lt", "LESS_THAN_OR_EQUAL": "lte"}
# A bound between two units is moved to the one that leaves the range as it is.
NEXT = {"gt": ROUND_FLOOR, "gte": ROUND_CEILING, "lt": ROUND_CEILING, "lte": ROUND_FLOOR}


def clause(expression: Expression, region: str | None) -> Clause:
    """The filter that finds what the expression says; `region` is where national telephone numbers are of."""
    match expression:
        case All(parts):
            return {"bool": {"filter": [clause(part, region) for part in parts]}}
        case Any_(parts):
            return {"bool": {"should": [clause(part, region) for part in parts]}}
        case Not(part):
            return _not(clause(part, region))
        case Condition(field, operator, values) if operator in OPPOSITE:
            return _not(clause(Condition(field, OPPOSITE[operator], values), region))
        case Condition():
            return _condition(expression, region)


def _not(inner: Clause) -> Clause:
    return {"bool": {"must_not": [inner]}}


def _condition(condition: Condition, region: str | None) -> Clause:
    kind = FIELDS.get(condition.field)
    if kind is NUMBER:
        return _number(condition)
    if kind is MOMENT:
        return _moment(condition)
    return _text(condition, region)


def _number(condition: Condition) -> Clause:
    field, operator, values = condition
    unit, largest = UNITS[field], LARGEST[field]
    if operator == "EXISTS":
        return EVERYTHING
    units = [_units(value, unit, largest) for value in values]
    if operator in {"EQUALS", "IN"}:
        whole = [int(value) for value in units if value == value.to_integral_value()]
        return {"terms": {field: whole}} if whole else NOTHING
    window = {}
    for bound, value in _window(operator, units).items():
        window[bound] = int(value.to_integral_value(NEXT[bound]))
    return {"range": {field: window}}


def _units(value: Decimal, unit: int, largest: int) -> Decimal:
    """Exactly, but for what lies outside of all there can be."""
    return EXACT.multiply(min(max(value, Decimal(-1)), Decimal(largest) / unit), Decimal(unit))


def _moment(condition: Condition) -> Clause:
    field, operator, values = condition
    if operator == "EXISTS":
        return {"exists": {"field": field}}
    if operator in {"EQUALS", "IN"}:
        return {"terms": {field: [time(value) for value in values]}}
    return {"range": {field: {bound: time(value) for bound, value in _window(operator, values).items()}}}


def _text(condition: Condition, region: str | None) -> Clause:
    field, operator, values = condition
    if operator == "EXISTS":
        return {"term": {"texts": field}}
    if operator == "CONTAINS":
        return {"wildcard": {"contents": {"value": f"{path_code(field)}*{_literal(fold(values[0]))}*"}}}
    if operator in {"EQUALS", "IN"}:
        return _equals(field, values, region)
    # Beyond the first or last of the field's numbers there are those of other fields.
    window = {"gt": f"{field}\0", "lt": f"{field}\1"}
    for bound, value in _window(operator, values).items():
        del window[bound[:2]]
        window[bound] = number_term(field, value)
    return {"range": {"numbers": window}}


def _equals(field: str, values: Sequence[Any], region: str | None) -> Clause:
    """Text ignoring case; in metadata also the number it is, and a number as a number alone."""
    texts, numbers = [], []
    for value in values:
        if isinstance(value, bool):
            texts.append(text_term(field, "true" if value else "false"))
            continue
        if isinstance(value, str):
            texts.append(text_term(field, value))
        if field == "phone":
            texts.append(text_term(field, _as_stored(value, region)))
        if field.startswith(METADATA) and (isinstance(value, Decimal) or fields.DECIMAL.fullmatch(value)):
            numbers.append(number_term(field, Decimal(value)))
    clauses = [
        {"terms": {name: list(dict.fromkeys(found))}}
        for name, found in (("texts", texts), ("numbers", numbers))
        if found
    ]
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": clauses}}


def _as_stored(phone: str, region: str | None) -> str:
    """The number as a consumer's would be stored; what is none stays as it is."""
    try:
        return fields.phone(phone, region)
    except ValueError:
        return phone


def _window(operator: str, values: Sequence[Any]) -> dict[str, Any]:
    if operator == "BETWEEN":
        return {"gte": values[0], "lte": values[1]}
    return {BOUNDS[operator]: values[0]}


def _literal(text: str) -> str:
    """Text for a pattern, in which nothing stands for anything else."""
    return text.replace("\\", r"\\").replace("*", r"\*").replace("?", r"\?")
