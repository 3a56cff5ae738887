"""Hypothesis strategies for filter expressions with values that are hard to compare, and their text form."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from infra.filters.conditions import MAX_CLAUSES, AllOf, AnyOf, Condition, Expression, Not, clause_count, is_ignored
from infra.filters.language import MAX_CONDITIONS, MAX_DEPTH, MAX_LENGTH
from tests.filter_reference import moment

NAMES = [
    "Ann",
    "ANN",
    "ann lee",
    "Straße",
    "STRASSE",
    "ΣΊΣΥΦΟΣ",
    "σίσυφος",
    "Σ",
    "ς",
    "İstanbul",
    "i̇stanbul",
    "istanbul",
    "ISTANBUL",
    "É",
    "e\u0301",
    "e",
    "\u0301",
    "o\u0323\u0302",
    "ﬃ",
    "FFI",
    "ΐ",
    "😀👩‍👩‍👧",
    "*",
    "?",
    "\\",
    '"',
    '\\"',
    "a*b?c\\d",
    "axbyc\\d",
    "a..b",
    "(a OR b)",
    "NOT",
    "\u2028",
    "tab\there",
    "~x",
    ">=5",
    "田中",
    "x" * 255,
    "ﬃ" * 255,
    "💥" * 200,
]
NUMBERS = [
    "0",
    "-0",
    "5",
    "5.0",
    "-1.5",
    "1e300",
    "-1e300",
    "1e-300",
    "12345678901234567890.123",
    "12345678901234567890.124",
    "9007199254740993",
    "0.1",
    "10",
    "0.0001",
    "1234.5",
    "90000000000000",
    "89999999999999.9999",
    "5.00000000000000000000000000001",
    "2147483648",
    "1e999",
]
LONG = "Lorem ἄλφα ς " * 250 + "Nadel" + " ΐﬃ" * 350 + "E\u0301nde"
TIMES = ["0001-01-02T00:00:00Z", "1969-12-31T23:59:59.999Z", "2024-01-01T00:00:00Z", "2024-02-29T12:00:00.5Z"]
MOMENTS = [*TIMES, "2024-02-29T12:00:00.501Z", "9999-12-30T00:00:00Z"]
DATES = [*MOMENTS, "2024-01-01", "2024-01-01T01:00:00+01:00", "1990-12-31", "2024-01-01T00:00:00", "2024-13-01"]
KEYS = [
    "tier",
    "Tier",
    "n",
    "tags",
    "a",
    "a.b",
    "b",
    "with space",
    'q"\\',
    "schlüssel ß",
    "🎉",
    "*",
    "(",
    "OR",
    "..",
    "c",
]
EMAILS = ["ann@example.com", "ANN@example.com", "éva@example.com", "o'brien+x@example.com", "*@example.com"]
PHONES = ["+442079460000", "020 7946 0000", "+44 20 7946 0000", "02079460001", "123", "#12*"]

_keys = st.sampled_from([key for key in KEYS if all(key.split("."))])
_texts = st.sampled_from([*NAMES, *NUMBERS, *DATES, "true", "TRUE", "false", "gold", "nadel", "ς ΐ", "énde", "Ende"])
_numbers = st.sampled_from(NUMBERS).map(Decimal)
_moments = st.sampled_from(MOMENTS).map(moment)
paths = st.lists(_keys, min_size=1, max_size=3).map(".".join).filter(lambda path: path.count(".") < 5)

LANGUAGE = ["EQUALS", "CONTAINS", "BETWEEN", "EXISTS", "GREATER_THAN", "GREATER_THAN_OR_EQUAL", "LESS_THAN"]
LANGUAGE += ["LESS_THAN_OR_EQUAL"]
ALL_OPERATORS = [*LANGUAGE, "IN", "NOT_EQUALS", "NOT_CONTAINS", "NOT_IN", "NOT_EXISTS"]
TEXTUAL = {"EQUALS", "CONTAINS", "EXISTS", "IN", "NOT_EQUALS", "NOT_CONTAINS", "NOT_IN", "NOT_EXISTS"}
CONTAINING = {"CONTAINS", "NOT_CONTAINS"}
TIMES = ["createdAt", "updatedAt", "lastOrderAt"]
TEXTS = {"email": EMAILS, "phone": PHONES, "fullName": NAMES, "externalId": [*NAMES, "ext-1"]}


@st.composite
def conditions(draw: st.DrawFn, operators: Sequence[str] = LANGUAGE, *, rules: bool = False) -> Condition:
    """Any valid condition; with `rules`, metadata is also compared with numbers and booleans of JSON."""
    field = draw(st.sampled_from([*TEXTS, "totalOrders", "totalOrderValue", *TIMES, *["metadata"] * 8]))
    if field == "metadata":
        field = f"metadata.{draw(paths)}"
    name: Any = draw(st.sampled_from([one for one in operators if _suits(one, field)]))
    values = _values_for(field, name, rules=rules)
    if name in {"EXISTS", "NOT_EXISTS"}:
        return Condition(field, name)
    if field.startswith("metadata.") and name not in TEXTUAL:
        values = draw(st.sampled_from([_numbers, _moments]))
    if name == "BETWEEN":
        return Condition(field, name, sorted([draw(values), draw(values)]))
    if name in CONTAINING:
        values = values.filter(lambda text: not is_ignored(text))
    size = draw(st.integers(1, 4)) if name in {"IN", "NOT_IN"} else 1
    return Condition(field, name, [draw(values) for _ in range(size)])


def _suits(name: str, field: str) -> bool:
    return field.startswith("metadata.") or name in (TEXTUAL if field in TEXTS else {*ALL_OPERATORS} - CONTAINING)


def _values_for(field: str, name: str, *, rules: bool) -> st.SearchStrategy[Any]:
    if field in TEXTS:
        return _near(TEXTS[field])
    if not field.startswith("metadata."):
        return _moments if field.endswith("At") else _numbers
    if name in CONTAINING:
        return _texts | _pieces
    return st.one_of(_texts, _pieces, *([_numbers.filter(_is_json), st.booleans()] if rules else []))


def _near(texts: Sequence[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(texts) | st.sampled_from(texts).map(str.swapcase).filter(_is_short) | _pieces


def _is_short(text: str) -> bool:
    return len(text) <= 255


_pieces = st.builds(
    lambda text, begin, size: text[begin : begin + size],
    st.sampled_from([*NAMES, LONG]),
    st.integers(0, 30) | st.integers(0, len(LONG)),
    st.integers(1, 5),
).filter(bool)


def _is_json(number: Decimal) -> bool:
    """Return whether JSON parsers read the number exactly."""
    return number == Decimal(repr(float(number)))


def expressions(leaves: st.SearchStrategy[Condition]) -> st.SearchStrategy[Expression]:
    """Expressions of a few conditions, within the limits of the language."""

    def joined(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        parts = st.lists(inner, min_size=2, max_size=4)
        return parts.map(AllOf) | parts.map(AnyOf) | inner.map(Not)

    return st.recursive(leaves, joined, max_leaves=8).filter(_is_within_limits)


def _is_within_limits(expression: Expression) -> bool:
    limits = depth(expression) <= MAX_DEPTH and size(expression) <= MAX_CONDITIONS
    return limits and len(written(expression)) <= MAX_LENGTH and is_light(leaves(expression))


def is_light(conditions: Iterable[Condition]) -> bool:
    """Return whether all conditions fit into one query."""
    return sum(map(clause_count, conditions)) <= MAX_CLAUSES


def leaves(expression: Expression) -> list[Condition]:
    if isinstance(expression, Condition):
        return [expression]
    return [leaf for part in _inner(expression) for leaf in leaves(part)]


def _inner(expression: Expression) -> Sequence[Expression]:
    match expression:
        case AllOf(parts) | AnyOf(parts):
            return parts
        case Not(part):
            return [part]
        case Condition():
            return []


def depth(expression: Expression) -> int:
    return 1 + max(map(depth, _inner(expression)), default=0)


def size(expression: Expression) -> int:
    return len(leaves(expression))


def written(expression: Expression, conjunction: str = " AND ") -> str:
    """Write an expression as filter text."""
    match expression:
        case AllOf(parts):
            return "(" + conjunction.join(written(part, conjunction) for part in parts) + ")"
        case AnyOf(parts):
            return "(" + " OR ".join(written(part, conjunction) for part in parts) + ")"
        case Not(part):
            return f"NOT {written(part, conjunction)}"
        case Condition(field, name, values):
            return f"{_field(field)}:{_values(name, [_quoted(as_text(value)) for value in values])}"


COMPARISONS = {
    "EQUALS": "",
    "CONTAINS": "~",
    "GREATER_THAN": ">",
    "GREATER_THAN_OR_EQUAL": ">=",
    "LESS_THAN": "<",
    "LESS_THAN_OR_EQUAL": "<=",
}


def _values(name: str, values: Sequence[str]) -> str:
    if name == "EXISTS":
        return "*"
    return "..".join(values) if name == "BETWEEN" else COMPARISONS[name] + values[0]


def _field(field: str) -> str:
    return "metadata." + _quoted(field.removeprefix("metadata.")) if field.startswith("metadata.") else field


def _quoted(text: str) -> str:
    """Quote a text if necessary."""
    if re.fullmatch(r"[^\s()\"\\<>~*.:]+", text) or re.fullmatch(r"[0-9T:-]+(\.[0-9]+)?Z?", text):
        return text
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'


def as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def as_rule(condition: Condition, group: str | None) -> dict[str, Any]:
    """Return a condition as a rule of an audience, in JSON."""
    values = [value if isinstance(value, str | bool) else _as_json(value) for value in condition.values]
    return {"field": condition.field, "operator": condition.operator, "values": values} | (
        {"groupId": group} if group else {}
    )


def _as_json(value: Any) -> Any:
    """Return a number for JSON if it is exact there; otherwise a text."""
    if isinstance(value, Decimal) and _is_json(value):
        return int(value) if value == int(value) and abs(value) < 2**63 else float(value)
    return as_text(value)
