"""The filter language: `totalOrderValue:>=100 AND (metadata.tier:gold OR NOT email:*)` (docs/filters.md).

Parses text to an `Expression`. Faults are collected and reported together, each with a position in the text.
"""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

from lark import Lark, ParseTree, Token, UnexpectedInput
from lark.exceptions import UnexpectedCharacters, UnexpectedToken
from lark.visitors import Transformer_NonRecursive

from infra.filters.conditions import (
    MAX_CLAUSES,
    TOO_MANY_CLAUSES,
    UNKNOWN_FIELD,
    AllOf,
    AnyOf,
    Condition,
    Expression,
    Kind,
    Not,
    Operator,
    clauses_of,
    contained_fault,
    kind_of,
    range_fault,
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
RANGE, ANY_VALUE = "..", "*"
OPERATOR_WORD = re.compile(r"(and|or|not)(?=[\s(]|$)", re.IGNORECASE)
MAX_QUOTED = 20
"""Characters of the text quoted in a message."""


class FilterError(ValueError):
    """The text is not a filter. `faults` are messages, each beginning with a position."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class _Part(NamedTuple):
    """A part of the expression, with the size."""

    expression: Expression
    depth: int = 1
    conditions: int = 1


@lru_cache(maxsize=256)
def parse(text: str) -> Expression:
    """Parse a filter.

    Raises:
        FilterError: with all faults of the text.
    """
    if len(text) > MAX_LENGTH:
        raise FilterError([f"Must be at most {MAX_LENGTH} characters"])
    builder = _Builder()
    tree = _syntax_tree(text, builder.faults)
    whole: _Part = builder.transform(tree)
    if whole.conditions > MAX_CONDITIONS:
        builder.faults.append(f"Must have at most {MAX_CONDITIONS} conditions, but has {whole.conditions}")
    if whole.depth > MAX_DEPTH:
        builder.faults.append(f"Must be at most {MAX_DEPTH} levels deep, but has {whole.depth} levels")
    elif clauses_of(whole.expression) > MAX_CLAUSES:
        builder.faults.append(TOO_MANY_CLAUSES)
    if builder.faults:
        raise FilterError(builder.faults)
    return whole.expression


# Without recursion: a deeply nested text must not exceed the stack.
class _Builder(Transformer_NonRecursive[Token, _Part]):
    """Builds the expression from the syntax tree, and collects the faults of conditions."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def any(self, parts: list[_Part]) -> _Part:
        return _combined(AnyOf([part.expression for part in parts]), parts)

    def all(self, parts: list[_Part]) -> _Part:
        return _combined(AllOf([part.expression for part in parts]), parts)

    def negation(self, parts: list[_Part]) -> _Part:
        return _combined(Not(parts[0].expression), parts)

    def condition(self, tokens: list[Token]) -> _Part:
        field, value = tokens
        try:
            condition = _condition(_unquoted(field[:-1]), value)
        except _FieldError as error:
            self.faults.append(_at(field, str(error)))
        except ValueError as error:
            self.faults.append(_at(value, str(error)))
        else:
            return _Part(condition)
        return _Part(Condition(field, "EXISTS"))


class _FieldError(ValueError):
    """The fault is in the field, not in the value."""


def _combined(expression: Expression, parts: list[_Part]) -> _Part:
    return _Part(
        expression,
        depth=1 + max(part.depth for part in parts),
        conditions=sum(part.conditions for part in parts),
    )


def _condition(field: str, value: str) -> Condition:
    kind = kind_of(field)
    if kind is None:
        raise _FieldError(UNKNOWN_FIELD)
    if value == ANY_VALUE:
        return Condition(field, "EXISTS")
    if not (match := VALUE.fullmatch(value)):
        raise ValueError("Put the whole value in quotes if it contains spaces, quotes or brackets")
    operator, operands = COMPARISONS[match["comparison"]], [match["first"]]
    if match["range"]:
        if match["comparison"]:
            raise ValueError(f"Use either a range ({RANGE}) or {match['comparison']}, not both")
        operator, operands = _range(match["first"], match["last"])
    if operator not in kind.operators:
        raise ValueError(_unsupported(field, kind, RANGE if match["range"] else match["comparison"]))
    if not all(operands):
        raise ValueError("Expected a value")
    values = [read_value(kind, operator, _unquoted(operand)) for operand in operands]
    if fault := range_fault(operator, values) or contained_fault(operator, values):
        raise ValueError(fault)
    return Condition(field, operator, values)


def _range(first: str, last: str) -> tuple[Operator, list[str]]:
    """Parse `a..b`, `a..` or `..b`. The ends belong to the range."""
    if first and last:
        return "BETWEEN", [first, last]
    return ("GREATER_THAN_OR_EQUAL", [first]) if first else ("LESS_THAN_OR_EQUAL", [last])


def _unsupported(field: str, kind: Kind, symbol: str) -> str:
    comparisons = [each for each, operator in COMPARISONS.items() if each and operator in kind.operators]
    supported = [*comparisons, *[RANGE] * ("BETWEEN" in kind.operators)]
    message = (
        f"Operator {symbol} is not supported for {field}: use a value alone, {', '.join(supported)} or {ANY_VALUE}"
    )
    return f"{message}; put a value that contains {RANGE} in quotes" if symbol == RANGE else message


def _unquoted(text: str) -> str:
    return QUOTED.sub(lambda match: re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL), text)


def _syntax_tree(text: str, faults: list[str]) -> ParseTree:
    """Parse the text as if every operator were in capitals; add a fault for each operator in lower case.

    A word is taken as an operator only where the grammar refuses the word: a value, a key and a quoted text keep their
    `and`.

    Raises:
        FilterError: the text has another fault of syntax, or too many operators in lower case.
    """
    while True:
        try:
            return PARSER.parse(text)
        except UnexpectedInput as error:
            position, expected = _position(text, error)
            word = OPERATOR_WORD.match(text, position)
            if not word or word[0].isupper():
                fault = f"At character {position + 1}: {_expectation(text[position:], expected)}"
                raise FilterError([*faults, fault]) from None
        operator = word[0].upper()
        faults.append(f"At character {position + 1}: Write {operator} in capitals, or put text with spaces in quotes")
        if len(faults) > MAX_CONDITIONS:
            raise FilterError(faults)
        text = text[:position] + operator + text[word.end() :]


def _position(text: str, error: UnexpectedInput) -> tuple[int, Collection[str]]:
    """Return the position of a syntax error, and the tokens expected there."""
    if isinstance(error, UnexpectedToken):
        expected = error.expected
        position = len(text) if error.token.type == "$END" else error.token.start_pos
    else:
        assert isinstance(error, UnexpectedCharacters)
        position, expected = error.pos_in_stream, error.allowed
    assert position is not None
    return position, expected


def _expectation(remaining: str, expected: Collection[str]) -> str:
    if remaining.startswith('"'):
        return "The quotes are not closed, or other text is directly beside them"
    if "VALUE" in expected:
        return "Expected a value"
    actual = repr(remaining[:MAX_QUOTED]) if remaining.strip() else "the end"
    if "FIELD" in expected:
        return f"Expected a condition, such as email:*, but found {actual}"
    return f"Expected {'AND or OR' if remaining.strip() else 'a closing bracket'}, but found {actual}"


def _at(token: Token, message: str) -> str:
    """Prefix a message with the token's position. Characters are counted from 1."""
    assert token.start_pos is not None
    return f"At character {token.start_pos + 1}: {message}"
