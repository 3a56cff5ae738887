"""Values of aggregations: sizes, lists of numbers, ranges, times and orders."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from api.analytics.fields import Field, Refused, number
from api.analytics.queries import members, single
from infra import fields

MAX_PERCENTS, MAX_RANGES = 50, 50
MAX_MILLISECONDS = 10**14


class Place(NamedTuple):
    """The place of an aggregation: path in the body, level, and maximum of buckets around."""

    path: str
    level: int = 1
    buckets: int = 1


class Checked(NamedTuple):
    """An aggregation for the index."""

    body: Any
    field: Field | None
    buckets: int = 0
    """Maximum of buckets; 0 for a metric."""
    is_keyed: bool = False
    """Whether the answer has an object in place of a list."""


def least(given: Mapping[str, Any], path: str, smallest: int = 1) -> int:
    """Return `min_doc_count`. Empty buckets are never made: OpenSearch would make them without a limit."""
    value = given.get("min_doc_count", smallest)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Refused(f"{path}.min_doc_count", "Must be a number of documents")
    return max(value, smallest)


def whole(value: Any, path: str, limit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
        raise Refused(path, f"Must be a whole number from 1 to {limit}")
    return value


def numbers(values: Any, path: str, unit: int = 1) -> list[int | float]:
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_PERCENTS:
        raise Refused(path, f"Must be a list of 1 to {MAX_PERCENTS} numbers")
    converted = [number(value, f"{path}[{index}]", unit) for index, value in enumerate(values)]
    if unit == 1 and path.endswith("percents") and not all(0 <= each <= 100 for each in converted):  # noqa: PLR2004
        raise Refused(path, "Must be numbers from 0 to 100")
    return converted


def keyed(given: Mapping[str, Any], *, default: bool) -> bool:
    return given.get("keyed", default) is True


def ranges(entries: Any, path: str) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_RANGES:
        raise Refused(f"{path}.ranges", f"Must be a list of 1 to {MAX_RANGES} ranges")
    return [
        (f"{path}.ranges[{index}]", members(entry, f"{path}.ranges[{index}]", "key", "from", "to"))
        for index, entry in enumerate(entries)
    ]


def range_name(entry: Mapping[str, Any]) -> str:
    return f"{entry.get('from', '*')}-{entry.get('to', '*')}"


def date(value: Any, path: str) -> datetime:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_MILLISECONDS:
        return datetime.fromtimestamp(value / 1000, UTC)
    try:
        return fields.timestamp(value if isinstance(value, str) else "")
    except ValueError:
        raise Refused(path, "Must be a time in RFC 3339, or a date") from None


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
