"""The fields of live questions. None identifies a person.

Of the e-mail address and other personal data, a question can only ask whether a value exists. The domain of an address
can be grouped by, and not searched for: a search would confirm a guess about a person.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, NamedTuple

from infra import fields
from infra.exports.attributes import Attribute
from infra.index.documents import MONEY_UNIT

Kind = Literal["keyword", "group", "presence", "count", "money", "date", "attribute"]
ATTRIBUTES = "attributes."
MAX_NUMBER = 10**18


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
    try:
        exact = Decimal(str(value)) * unit if isinstance(value, int | float | str) else None
    except InvalidOperation:
        exact = None
    if exact is None or isinstance(value, bool) or not exact.is_finite() or abs(exact) > MAX_NUMBER:
        raise Refused(path, "Must be a number")
    return int(exact) if exact == int(exact) else float(exact)


def moment(value: Any, path: str) -> Any:
    """Return a time: RFC 3339, a date, or milliseconds.

    Raises:
        Refused: the value is no time.
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER:
        return value
    try:
        return fields.timestamp(value).isoformat(timespec="milliseconds") if isinstance(value, str) else _no_time()
    except ValueError:
        raise Refused(path, "Must be a time in RFC 3339, a date, or a number of milliseconds") from None


def _no_time() -> None:
    raise ValueError


def value_of(field: Field, value: Any, path: str) -> Any:
    """Return a value of a field as the index has it."""
    if field.is_number:
        return number(value, path, field.unit)
    if field.kind == "date":
        return moment(value, path)
    if isinstance(value, str) and len(value) <= fields.METADATA_KEY_LENGTH * 4:
        return value
    raise Refused(path, "Must be a text")


def _listed(names: Any) -> str:
    return ", ".join(names)
