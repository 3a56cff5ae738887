"""Convert an expression to a clause of OpenSearch's query language. Pure functions.

Only this module knows the meaning of conditions in the index. The terms of texts and metadata come from
`infra/index/terms.py`.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

from infra import fields, phone_numbers
from infra.filters.conditions import (
    FIELDS,
    METADATA,
    MOMENT,
    NUMBER,
    POSITIVE,
    AllOf,
    AnyOf,
    Condition,
    Expression,
    Not,
    contained_fault,
)
from infra.index.analysis import TEXT_END
from infra.index.documents import MONEY_UNIT
from infra.index.former_terms import exists_terms, former_code, text_terms
from infra.index.terms import (
    AFTER_NUMBERS,
    FOR_CONTAINS,
    MAX_VALUE_LENGTH,
    contained_text,
    date,
    date_term,
    number_term,
    path_code,
)
from infra.wire import time

Clause = dict[str, Any]

NOTHING: Clause = {"match_none": {}}
EVERYTHING: Clause = {"match_all": {}}
UNITS = {"totalOrders": 1, "totalOrderValue": MONEY_UNIT}
MAX_STORED = {"totalOrders": 2**31 - 1, "totalOrderValue": 10**18}
"""At least the largest possible value, and within the range of the index's integers."""
EXACT = Context(prec=2 * MAX_VALUE_LENGTH)
BOUNDS = {"GREATER_THAN": "gt", "GREATER_THAN_OR_EQUAL": "gte", "LESS_THAN": "lt", "LESS_THAN_OR_EQUAL": "lte"}
RESERVED = re.compile(r"[!-/:-@\[-`{-~]")
"""Characters with a meaning in a regular expression of OpenSearch, and further ones."""
WILDCARDS = re.compile(r"[\\*?]")
ROUNDING = {"gt": ROUND_FLOOR, "gte": ROUND_CEILING, "lt": ROUND_CEILING, "lte": ROUND_FLOOR}
"""Direction in which a bound between two units is rounded, so that the range keeps the same integers."""


def clause(expression: Expression, region: str | None) -> Clause:
    """Return the clause of an expression.

    Args:
        expression: the conditions.
        region: country of national phone numbers, as two letters.
    """
    match expression:
        case AllOf(parts):
            return {"bool": {"filter": [clause(part, region) for part in parts]}}
        case AnyOf(parts):
            return {"bool": {"should": [clause(part, region) for part in parts]}}
        case Not(part):
            return _not(clause(part, region))
        case Condition(_, operator, values) if contained_fault(operator, values):
            return NOTHING
        case Condition(field, operator, values) if operator in POSITIVE:
            return _not(clause(Condition(field, POSITIVE[operator], values), region))
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
    unit, maximum = UNITS[field], MAX_STORED[field]
    if operator == "EXISTS":
        return EVERYTHING
    units = [_units(value, unit, maximum) for value in values]
    if operator in {"EQUALS", "IN"}:
        whole = [int(value) for value in units if value == value.to_integral_value()]
        return {"terms": {field: whole}} if whole else NOTHING
    bounds = {}
    for bound, value in _bounds(operator, units).items():
        bounds[bound] = int(value.to_integral_value(ROUNDING[bound]))
    return {"range": {field: bounds}}


def _units(value: Decimal, unit: int, maximum: int) -> Decimal:
    """Convert a value to units, exactly. Clamp an impossible value to -1 or `maximum`."""
    return EXACT.multiply(min(max(value, Decimal(-1)), Decimal(maximum) / unit), Decimal(unit))


def _moment(condition: Condition) -> Clause:
    field, operator, values = condition
    if operator == "EXISTS":
        return {"exists": {"field": field}}
    if operator in {"EQUALS", "IN"}:
        return {"terms": {field: [time(value) for value in values]}}
    return {"range": {field: {bound: time(value) for bound, value in _bounds(operator, values).items()}}}


def _text(condition: Condition, region: str | None) -> Clause:
    field, operator, values = condition
    if operator == "EXISTS":
        return {"terms": {"texts": exists_terms(field)}}
    if operator == "CONTAINS":
        return _contains(field, contained_text(field, values[0]))
    if operator in {"EQUALS", "IN"}:
        return _equals(field, values, region)
    # `numbers` holds the numbers and dates of all fields: both ends of the range must stay within those of this field.
    numbers, dates = (
        {"gt": f"{field}\0", "lt": f"{field}{AFTER_NUMBERS}"},
        {"gt": f"{field}{AFTER_NUMBERS}", "lt": f"{field}\1"},
    )
    bounds = dates if isinstance(values[0], datetime) else numbers
    for bound, value in _bounds(operator, values).items():
        del bounds[bound[:2]]
        bounds[bound] = (date_term if isinstance(value, datetime) else number_term)(field, value)
    return {"range": {"numbers": bounds}}


def _equals(field: str, values: Sequence[Any], region: str | None) -> Clause:
    """Compare text ignoring case. In metadata, numeric text also equals the number, and a date the same time in any
    notation; a number equals only numbers.
    """
    texts, numbers = [], []
    for value in values:
        if isinstance(value, bool):
            texts += text_terms(field, "true" if value else "false")
            continue
        if isinstance(value, str):
            texts += text_terms(field, value)
        if field == "phone":
            texts += [term for number in phone_numbers.equivalents(value, region) for term in text_terms(field, number)]
        if field.startswith(METADATA) and (isinstance(value, Decimal) or fields.DECIMAL.fullmatch(value)):
            numbers.append(number_term(field, Decimal(value)))
        elif field.startswith(METADATA) and (moment := date(value)):
            numbers.append(date_term(field, moment))
    clauses = [
        {"terms": {name: list(dict.fromkeys(compared))}}
        for name, compared in (("texts", texts), ("numbers", numbers))
        if compared
    ]
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": clauses}}


def _bounds(operator: str, values: Sequence[Any]) -> dict[str, Any]:
    if operator == "BETWEEN":
        return {"gte": values[0], "lte": values[1]}
    return {BOUNDS[operator]: values[0]}


def _contains(path: str, text: str) -> Clause:
    """Return the clause for a text of a path that contains a text."""
    code = f"\\{FOR_CONTAINS}?{path_code(path)}"
    pattern = f".*{TEXT_END}{code}[^{TEXT_END}]*{RESERVED.sub(_escaped, text)}.*"
    present = {"regexp": {"allContents": {"value": pattern, "flags": "NONE"}}}
    former = {"wildcard": {"contents": {"value": f"{former_code(path)}*{WILDCARDS.sub(_escaped, text)}*"}}}
    return {"bool": {"should": [present, former]}}


def _escaped(reserved: re.Match[str]) -> str:
    """Return a reserved character of a pattern, escaped.

    OpenSearch would take a backslash and the next character for one character when it chooses the trigrams of a literal
    part of a regular expression. The repetition ends the literal part.
    """
    character = reserved[0]
    return r"\\{1}" if character == "\\" and reserved.re is RESERVED else f"\\{character}"
