"""Values of aggregations: sizes, lists of numbers, ranges, times and orders."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from api.analytics.fields import Field, Refused, number, text
from api.analytics.queries import members, single

MAX_PERCENTS, MAX_RANGES = 50, 50
MAX_COUNT = 2**31 - 1
NAME = re.compile(r"[^\[\]>\x00-\x1f\x7f]{1,100}")


class Place(NamedTuple):
    """The place of an aggregation: path in the body, level, and the buckets around."""

    path: str
    level: int = 1
    buckets: int = 1
    """Maximum of buckets around."""
    overlap: int = 1
    """Maximum of buckets around that count the same consumer."""


class Checked(NamedTuple):
    """An aggregation for the index, and what it costs in each bucket around."""

    body: Any
    field: Field | None
    buckets: int = 0
    """Maximum of buckets; 0 for a metric."""
    overlap: int = 1
    """Maximum of these buckets that count the same consumer."""
    work: int = 1
    """Processor time for each consumer, in units (`costs.py`)."""
    numbers: int = 1
    """Numbers in the answer, in each bucket of its own if there are any."""
    sketches: int = 0
    """1 for a metric that needs much memory."""
    is_keyed: bool = False
    """Whether the answer has an object in place of a list."""


def least(given: Mapping[str, Any], path: str, smallest: int = 1) -> int:
    """Return `min_doc_count`. Empty buckets are never made: OpenSearch would make them without a limit."""
    return max(whole(given.get("min_doc_count", smallest), f"{path}.min_doc_count", MAX_COUNT, least=0), smallest)


def whole(value: Any, path: str, most: int, *, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refused(path, f"Must be a whole number from {least} to {most}")
    return value


def integer(value: Any, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise Refused(path, "Must be the value of an answer, unchanged")
    return value


def numbers(values: Any, path: str, unit: int = 1) -> list[int | float]:
    """Return a list of numbers, each multiplied by the unit."""
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_PERCENTS:
        raise Refused(path, f"Must be a list of 1 to {MAX_PERCENTS} numbers")
    return [number(value, f"{path}[{index}]", unit) for index, value in enumerate(values)]


def percents(values: Any, path: str) -> list[int | float]:
    converted = numbers(values, path)
    if not all(0 <= each <= 100 for each in converted):  # noqa: PLR2004
        raise Refused(path, "Must be numbers from 0 to 100")
    return converted


def name(value: str, path: str) -> str:
    """Return a name chosen by the client: of an aggregation, a source or a filter."""
    if NAME.fullmatch(value):
        return value
    raise Refused(path, "A name has 1 to 100 characters, without [, ], > and control characters")


def flag(given: Mapping[str, Any], member: str, path: str, *, default: bool) -> bool:
    value = given.get(member, default)
    if not isinstance(value, bool):
        raise Refused(f"{path}.{member}", "Must be true or false")
    return value


def ranges(entries: Any, path: str, read: Callable[[Any, str], Any], *, is_named: bool) -> list[dict[str, Any]]:
    """Return ranges, whose ends are read by a function.

    Args:
        entries: of the body.
        path: of the list.
        read: converts an end.
        is_named: whether a range without `key` gets a name made of its ends as they were sent.
    """
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_RANGES:
        raise Refused(path, f"Must be a list of 1 to {MAX_RANGES} ranges")
    converted, keys = list[dict[str, Any]](), set[str]()
    for index, entry in enumerate(entries):
        place = f"{path}[{index}]"
        given = members(entry, place, "key", "from", "to")
        key = name(text(given["key"], f"{place}.key"), f"{place}.key") if "key" in given else _ends(given)
        if key in keys:
            raise Refused(place, "Two ranges have the same key: give each a key of its own")
        keys.add(key)
        ends = {end: read(given[end], f"{place}.{end}") for end in ("from", "to") if end in given}
        converted.append(({"key": key} if is_named or "key" in given else {}) | ends)
    return converted


def _ends(entry: Mapping[str, Any]) -> str:
    return f"{entry.get('from', '*')}-{entry.get('to', '*')}"


def order(value: Any, path: str) -> dict[str, str]:
    name, direction = single(value, path)
    if name not in {"_count", "_key"} or direction not in ("asc", "desc"):
        raise Refused(path, 'Must be {"_count": "desc"} or {"_key": "asc"}, or the opposite')
    if (name, direction) == ("_count", "asc"):
        raise Refused(path, "The rarest values cannot be found exactly: use an export")
    return {name: direction}


def pattern(path: str) -> str:
    """Quote a path for Lucene's regular expressions."""
    return "".join(character if character.isalnum() else f"\\{character}" for character in path)
