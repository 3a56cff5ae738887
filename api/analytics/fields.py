"""The fields of live questions. None identifies a person.

Of the e-mail address and other personal data, a question can only ask whether a value exists. The domain of an address
can be grouped by, and not searched for: a search would confirm a guess about a person.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from infra import fields
from infra.exports.attributes import Attribute
from infra.index.documents import MONEY_UNIT
from infra.wire import time

Kind = Literal["keyword", "group", "presence", "count", "money", "date", "attribute"]
ATTRIBUTES = "attributes."
MAX_NUMBER = 10**18
MAX_TEXT = 256
MAX_DIGITS = 64
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RELATIVE = re.compile(r"now([+-][0-9]{1,4}[yMwdhms]){0,2}(/[yMwdhm])?")


class Refused(Exception):  # noqa: N818 (an answer to the sender)
    """A member that is not allowed, with the place in the body."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class Field(NamedTuple):
    """A field of a question."""

    name: str
    kind: Kind
    indexed: str
    """The field of the index."""

    @property
    def is_number(self) -> bool:
        return self.kind in {"count", "money"}

    @property
    def unit(self) -> int:
        """The factor between a value of a question and the value in the index."""
        return MONEY_UNIT if self.kind == "money" else 1


KINDS: Mapping[str, Kind] = {
    "id": "keyword",
    "audienceIds": "keyword",
    "emailDomain": "group",
    "phoneCountry": "keyword",
    "totalOrders": "count",
    "totalOrderValue": "money",
    "lastOrderAt": "date",
    "createdAt": "date",
    "updatedAt": "date",
    "email": "presence",
    "phone": "presence",
    "fullName": "presence",
    "externalId": "presence",
}
FIELDS = {name: Field(name, kind, name) for name, kind in KINDS.items()}
SHOWN = ("id", "audienceIds", "phoneCountry", "totalOrders", "totalOrderValue", "lastOrderAt", "createdAt", "updatedAt")
"""Fields of the source of a hit."""


def find(name: Any, path: str, attributes: Sequence[Attribute], *kinds: Kind) -> Field:
    """Return a field of one of the kinds.

    Raises:
        Refused: there is no such field, or it is of another kind.
    """
    if isinstance(name, str) and name.startswith(ATTRIBUTES):
        key = name.removeprefix(ATTRIBUTES)
        declared = [attribute.path for attribute in attributes]
        if key not in declared:
            raise Refused(path, f"No attribute {key!r} is declared: use {_listed(declared) or 'none'}")
        field = Field(name, "attribute", f"metadata.{key}")
    elif isinstance(name, str) and name in FIELDS:
        field = FIELDS[name]
    else:
        raise Refused(path, f"Unknown field: use {_listed(FIELDS)} or {ATTRIBUTES}NAME")
    if field.kind not in kinds:
        allowed = [each.name for each in FIELDS.values() if each.kind in kinds]
        allowed += [f"{ATTRIBUTES}NAME"] * ("attribute" in kinds)
        raise Refused(path, f"Not possible with {name}: use {_listed(allowed)}")
    return field


def number(value: Any, path: str, unit: int = 1) -> int | float:
    """Return a number, multiplied by the unit.

    Raises:
        Refused: the value is no number, or too large.
    """
    is_number = isinstance(value, int | float | str) and not isinstance(value, bool)
    if is_number and not (isinstance(value, int) and abs(value) > MAX_NUMBER):
        written = str(value)
        if len(written) <= MAX_DIGITS and fields.DECIMAL.fullmatch(written):
            exact = Decimal(written) * unit
            if abs(exact) <= MAX_NUMBER:
                return int(exact) if exact == int(exact) else float(exact)
    raise Refused(path, f"Must be a number of at most {MAX_NUMBER // unit:,}")


def moment(value: Any, path: str) -> datetime:
    """Return a time: RFC 3339, a date (midnight in UTC), or milliseconds since 1970.

    Raises:
        Refused: the value is no time in the years 1 to 9999.
    """
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            value = (EPOCH + timedelta(milliseconds=value)).isoformat()
        return fields.timestamp(value if isinstance(value, str) else "")
    except (ValueError, OverflowError):
        message = "Must be a time in RFC 3339, a date, or milliseconds since 1970, in the years 1 to 9999"
        raise Refused(path, message) from None


def bound(value: Any, path: str) -> str:
    """Return an end of a range of times, for the index. Such an end may be relative to the present (`now-30d/d`).

    Raises:
        Refused: the value is no time.
    """
    if isinstance(value, str) and value.startswith("now"):
        if RELATIVE.fullmatch(value):
            return value
        raise Refused(path, "A time relative to now has the form now-30d, or now-1M/d to round down to the day")
    return time(moment(value, path))


def text(value: Any, path: str) -> str:
    """Return a text to look up.

    Raises:
        Refused: the value is no text, or too long.
    """
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return value
    raise Refused(path, f"Must be a text of at most {MAX_TEXT} characters")


def _listed(names: Any) -> str:
    return ", ".join(names)
