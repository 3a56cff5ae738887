"""A reference implementation of conditions (contract.md §4), on a consumer's JSON in plain Python.

The implementation shares nothing with terms, queries or OpenSearch.
"""

import operator
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from infra import fields
from infra.filters.conditions import AllOf, AnyOf, Condition, Expression, Not

NEGATIVES = {"NOT_EQUALS": "EQUALS", "NOT_CONTAINS": "CONTAINS", "NOT_IN": "IN", "NOT_EXISTS": "EXISTS"}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "GREATER_THAN": operator.gt,
    "GREATER_THAN_OR_EQUAL": operator.ge,
    "LESS_THAN": operator.lt,
    "LESS_THAN_OR_EQUAL": operator.le,
}

Row = Mapping[str, Any]
"""A consumer as the API shows it, with numbers as Decimals."""


def holds(expression: Expression, row: Row, region: str | None) -> bool:
    """Return whether an expression is true for a consumer."""
    match expression:
        case AllOf(parts):
            return all(holds(part, row, region) for part in parts)
        case AnyOf(parts):
            return any(holds(part, row, region) for part in parts)
        case Not(part):
            return not holds(part, row, region)
        case Condition(field, name, values):
            if name in NEGATIVES:
                return not _any_holds(field, NEGATIVES[name], values, row, region)
            return _any_holds(field, name, values, row, region)


def _any_holds(field: str, name: str, values: Sequence[Any], row: Row, region: str | None) -> bool:
    if name == "CONTAINS" and field.startswith("metadata."):
        texts = _searched_texts(row["metadata"])
        return any(path == field and unaccented(values[0]) in text for path, text in texts)
    return any(_node_holds(field, name, values, node, region) for node in _nodes(row, field) if node is not None)


def _nodes(row: Row, field: str) -> Iterator[Any]:
    """Yield all values of a field."""
    if field.startswith("metadata."):
        yield from _at(row["metadata"], field.removeprefix("metadata."))
    elif field in {"createdAt", "updatedAt", "lastOrderAt"}:
        yield None if row[field] is None else datetime.fromisoformat(row[field])
    else:
        yield row[field]


def _at(value: Any, path: str) -> Iterator[Any]:
    if isinstance(value, list):
        for element in value:
            yield from _at(element, path)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == path:
                yield from _with_elements(inner)
            elif path.startswith(f"{key}."):
                yield from _at(inner, path[len(key) + 1 :])


def _searched_texts(metadata: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts of metadata for CONTAINS, with their paths: the shortest texts, up to 2 KiB (docs/filters.md)."""
    remaining = 2048
    unique = dict.fromkeys((path, unaccented(text)) for path, text in _texts("metadata", metadata))
    for path, text in sorted(unique, key=lambda one: len(one[1])):
        remaining -= 12 + len(text.encode())
        if remaining >= 0:
            yield path, text
            continue
        while remaining < 0 and text:
            remaining += len(text[-1].encode())
            text = text[:-1]  # noqa: PLW2901 (cut, character by character)
        if text:
            yield path, text
        return


def _texts(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(f"{path}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(path, inner)
    elif (text := _as_text(value)) is not None:
        yield path, text


def _with_elements(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, list):
        for element in value:
            yield from _with_elements(element)


def _node_holds(field: str, name: str, values: Sequence[Any], node: Any, region: str | None) -> bool:
    if name == "EXISTS":
        return True
    if name in {"EQUALS", "IN"}:
        return any(_equals(field, node, value, region) for value in values)
    if name == "CONTAINS":
        text = _as_text(node)
        return text is not None and unaccented(values[0]) in unaccented(text)
    if isinstance(node, str):
        node = _as_moment(node)
    is_time = isinstance(node, datetime)
    if not (is_time or _is_number(node)) or is_time != isinstance(values[0], datetime):
        return False
    if name == "BETWEEN":
        return bool(values[0] <= node <= values[1])
    return COMPARISONS[name](node, values[0])


def _equals(field: str, node: Any, value: Any, region: str | None) -> bool:
    if _is_number(node):
        return bool(node == _as_number(value))
    if isinstance(node, datetime):
        return bool(node == value)
    text, expected = _as_text(node), _as_text(value)
    if text is None or expected is None:
        return False
    if field.startswith("metadata.") and (time := _as_moment(text)) and time == _as_moment(expected):
        return True
    forms = {caseless(expected)}
    if field == "phone":
        forms |= {caseless(form) for form in _stored_phone(expected, region)}
    return caseless(text) in forms


def _as_text(value: Any) -> str | None:
    """Return a text, or a boolean as text; None for numbers, objects and arrays."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else None


def _as_number(value: Any) -> Decimal | None:
    if isinstance(value, str) and value.isascii() and value == value.strip() and "_" not in value:
        try:
            number = Decimal(value)
        except InvalidOperation:
            return None
        return number if number.is_finite() else None
    return Decimal(value) if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _stored_phone(value: str, region: str | None) -> Iterable[str]:
    try:
        return [fields.phone(value, region)]
    except ValueError:
        return []


def caseless(text: str) -> str:
    """Return Unicode's canonical caseless form (chapter 3.13, D145), composed, so that accents are part of letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def unaccented(text: str) -> str:
    """Return text without case, width, marks and invisible characters. The tests have no letters like ø and đ."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    letters = (character for character in decomposed if unicodedata.category(character) not in {"Mn", "Cf"})
    return unicodedata.normalize("NFC", "".join(letters))


def _as_moment(text: str) -> datetime | None:
    """Return a date, or a time with an offset; None for any other text."""
    if not text.isascii() or not text[:4].isdigit() or text[4:5] != "-":
        return None
    try:
        time = datetime.fromisoformat(text if "T" in text else f"{text}T00:00Z")
    except ValueError:
        return None
    return time if time.tzinfo else None


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
