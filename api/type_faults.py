"""Messages for values of a wrong type, in the words of JSON, made from the messages of msgspec in words of Python."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from api.error_codes import ErrorCode

WRONG_TYPE = re.compile(r"Expected `(?P<expected>[^`]+)`, got `(?P<actual>[^`]+)`")
BOUND = re.compile(r"Expected `(?P<type>\w+)`(?P<length> of length)? (?P<bound>[<>]=) (?P<number>-?[0-9.]+)")
PATH = re.compile(r" - at `\$(?P<path>[^`]*)`$")
EXPECTED = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
}
ACTUAL = EXPECTED | {"int": "a number", "bool": "a boolean"}


class TypeFault(NamedTuple):
    """The fault of a value."""

    path: str
    """Of the faulty part in the value, such as `[3]`; empty for the value itself."""
    message: str
    code: ErrorCode


def type_fault(error: msgspec.ValidationError, choices: Sequence[str], *, is_query: bool) -> TypeFault:
    """Describe an error of msgspec.

    Args:
        error: raised for a value.
        choices: the allowed values, if they are a list.
        is_query: whether the value is a parameter of a query, hence always text.
    """
    text = str(error)
    path = PATH.search(text)
    place = path["path"] if path else ""
    if text.startswith("Invalid enum value"):
        return TypeFault(place, f"Must be {_alternatives(choices)}", ErrorCode.INVALID_CHOICE)
    if wrong := WRONG_TYPE.match(text):
        expected = [EXPECTED.get(name, name) for name in wrong["expected"].split(" | ")]
        if is_query:
            return TypeFault(place, f"Must be {expected[0]}", ErrorCode.INVALID_TYPE)
        actual = ACTUAL.get(wrong["actual"], wrong["actual"])
        return TypeFault(place, f"Must be {_alternatives(expected)}, not {actual}", ErrorCode.INVALID_TYPE)
    if bound := BOUND.match(text):
        is_length = bool(bound["length"])
        unit = {"str": " characters", "array": " items"}[bound["type"]] if is_length else ""
        code = ErrorCode.INVALID_LENGTH if unit == " characters" else ErrorCode.OUT_OF_RANGE
        limit = "at most" if bound["bound"] == "<=" else "at least"
        return TypeFault(place, f"Must {'have' if unit == ' items' else 'be'} {limit} {bound['number']}{unit}", code)
    return TypeFault(place, PATH.sub("", text), ErrorCode.INVALID_VALUE)


def _alternatives(words: Sequence[str]) -> str:
    """Join alternatives: `a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
