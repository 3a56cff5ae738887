"""The filter language: `totalOrderValue:>=100 AND (metadata.tier:gold OR NOT email:*)` (docs/filters.md).

Text in, an `Expression` out, or every fault with its place.
"""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

from lark import Lark, Token, UnexpectedInput
from lark.exceptions import UnexpectedCharacters, UnexpectedToken
from lark.visitors import Transformer_NonRecursive

from infra.filters.conditions import (
    MOST_CLAUSES,
    TOO_MUCH,
    UNKNOWN_FIELD,
    All,
    Any_,
    Condition,
    Expression,
    Not,
    Operator,
    clauses_of,
    in_order,
    kind_of,
    read_value,
)

MAX_LENGTH, MAX_DEPTH, MAX_CONDITIONS = 2000, 10, 50

GRAMMAR = r"""
    ?start: any
    ?any: all (_OR all)*
    ?all: one (_AND? one)*
    ?one: _NOT one -> negation
        | "(" any ")"
        | FIELD VALUE -> condition

    _OR.2: /OR(?=[\s(]|$)/
    _AND.2: /AND(?=[\s(]|$)/
    _NOT.2: /NOT(?=[\s(]|$)/
    FIELD: /[A-Za-z]([^\s:()"]|"([^"\\]|\\.)*")*:/
    VALUE: /([^\s()"]|"([^"\\]|\\.)*")+/
    %ignore /\s+/
"""
PARSER = Lark(GRAMMAR, parser="lalr")
OPERAND = r'"(?:[^"\\]|\\.)*"|[^\s()"]*?'
VALUE = re.compile(rf"(?P<comparison>>=|<=|>|<|~)?(?P<first>{OPERAND})(?P<range>\.\.(?P<last>{OPERAND}))?", re.DOTALL)
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
COMPARISONS: dict[str | None, Operator] = {
    None: "EQUALS",
    "~": "CONTAINS",
    ">": "GREATER_THAN",
    ">=": "GREATER_THAN_OR_EQUAL",
    "<": "LESS_THAN",
    "<=": "LESS_THAN_OR_EQUAL",
}
ANY = "*"
SHOWN = 20
"""Characters of the text that a fault quotes."""


class FilterError(ValueError):
    """The text is no filter; `faults` say what is wrong, each beginning with its place."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class _Part(NamedTuple):
    expression: Expression
    depth: int = 1
    conditions: int = 1
    clauses: int = 0


@lru_cache(maxsize=256)
def parse(text: str) -> Expression:
    """What a filter says.

    Raises:
        FilterError: with all that is wrong.
    """
    if len(text) > MAX_LENGTH:
        raise FilterError([f"Must be at most {MAX_LENGTH} characters"])
    try:
        tree = PARSER.parse(text)
    except UnexpectedInput as error:
        raise FilterError([_unexpected(text, error)]) from None
    reading = _Reading()
    found: _Part = reading.transform(tree)
    if found.conditions > MAX_CONDITIONS:
        reading.faults.append(f"{found.conditions} conditions; there may be {MAX_CONDITIONS}")
    if found.depth > MAX_DEPTH:
        reading.faults.append(f"{found.depth} levels deep; there may be {MAX_DEPTH}")
    if found.clauses > MOST_CLAUSES:
        reading.faults.append(TOO_MUCH)
    if reading.faults:
        raise FilterError(reading.faults)
    return found.expression


# However deep the text is, nothing here calls itself.
class _Reading(Transformer_NonRecursive[Token, _Part]):
    """Puts the expression together, and gathers what is wrong with conditions."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def any(self, parts: list[_Part]) -> _Part:
        return _joined(Any_([part.expression for part in parts]), parts)

    def all(self, parts: list[_Part]) -> _Part:
        return _joined(All([part.expression for part in parts]), parts)

    def negation(self, parts: list[_Part]) -> _Part:
        return _joined(Not(parts[0].expression), parts)

    def condition(self, tokens: list[Token]) -> _Part:
        field, value = tokens
        try:
            found = _condition(_unquoted(field[:-1]), value)
        except _FieldError as error:
            self.faults.append(_placed(field, str(error)))
        except ValueError as error:
            self.faults.append(_placed(value, str(error)))
        else:
            return _Part(found, clauses=clauses_of(found))
        return _Part(Condition(field, "EXISTS"))


class _FieldError(ValueError):
    """The field, not its value, is wrong."""


def _joined(expression: Expression, parts: list[_Part]) -> _Part:
    return _Part(
        expression,
        depth=1 + max(part.depth for part in parts),
        conditions=sum(part.conditions for part in parts),
        clauses=sum(part.clauses for part in parts),
    )


def _condition(field: str, value: str) -> Condition:
    kind = kind_of(field)
    if kind is None:
        raise _FieldError(UNKNOWN_FIELD)
    if value == ANY:
        return Condition(field, "EXISTS")
    if not (found := VALUE.fullmatch(value)):
        raise ValueError("A value with spaces, quotes or brackets stands in quotes as a whole")
    operator, given = COMPARISONS[found["comparison"]], [found["first"]]
    if found["range"]:
        if found["comparison"]:
            raise ValueError("A range has no other comparison")
        operator, given = _range(found["first"], found["last"])
    if operator not in kind.operators:
        raise ValueError(f"{operator} makes no sense for {field}; text with .. in it stands in quotes")
    if not all(given):
        raise ValueError("Expected a value")
    values = [read_value(kind, operator, _unquoted(one)) for one in given]
    if not in_order(operator, values):
        raise ValueError("The first must not exceed the second")
    return Condition(field, operator, values)


def _range(first: str, last: str) -> tuple[Operator, list[str]]:
    """`a..b`, `a..` or `..b`; the ends belong to it."""
    if first and last:
        return "BETWEEN", [first, last]
    return ("GREATER_THAN_OR_EQUAL", [first]) if first else ("LESS_THAN_OR_EQUAL", [last])


def _unquoted(text: str) -> str:
    return QUOTED.sub(lambda found: re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL), text)


def _unexpected(text: str, error: UnexpectedInput) -> str:
    if isinstance(error, UnexpectedToken):
        expected = error.expected
        place = len(text) if error.token.type == "$END" else error.token.start_pos
    else:
        assert isinstance(error, UnexpectedCharacters)
        place, expected = error.pos_in_stream, error.allowed
    assert place is not None
    return f"At character {place + 1}: {_missing(text[place:], expected)}"


def _missing(rest: str, expected: Collection[str]) -> str:
    if rest.startswith('"'):
        return "The quotes are not closed, or something stands right beside them"
    if "VALUE" in expected:
        return "Expected a value"
    shown = repr(rest[:SHOWN]) if rest.strip() else "the end"
    if "FIELD" in expected:
        return f"Expected a condition, such as email:*, and not {shown}"
    return f"Expected {'AND or OR' if rest.strip() else 'a closing bracket'}, and not {shown}"


def _placed(token: Token, what: str) -> str:
    """Characters are counted from 1."""
    assert token.start_pos is not None
    return f"At character {token.start_pos + 1}: {what}"
