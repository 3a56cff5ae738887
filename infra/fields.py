"""Rules for the fields of consumers and orders (contract.md §2, §3), shared by the API and the importer.

Each rule takes the value sent, and returns the value to store or raises `ValueError` with a message for the client.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from infra import emails, phone_numbers
from infra.currencies import CURRENCIES

# Control characters, and Unicode's noncharacters.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(f"{chr(p + 0xFFFE)}{chr(p + 0xFFFF)}" for p in range(0, 0x110000, 0x10000))
    + "]"
)
DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
AMOUNT_DIGITS, AMOUNT_DECIMALS = 15, 4
MAX_QUANTITY, QUANTITY_DECIMALS = 1_000_000_000, 3
RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:?[0-9]{2}))?"
)
# A day within the range of Python's datetime: a stored time must be readable in every time zone.
EARLIEST, LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
# Unicode's format characters (Cf) that show nothing, and white space: removed at both ends of a text.
ENDS = "".join(
    chr(code)
    for first, last in (
        *((0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0xAD, 0xAD), (0x61C, 0x61C), (0x1680, 0x1680)),
        *((0x180E, 0x180E), (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x206F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
    )
    for code in range(first, last + 1)
)
# Letters of Unicode that show nothing.
FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
INVISIBLE_MARKS = frozenset(map(chr, [0x34F, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
METADATA_BYTES, METADATA_KEYS, METADATA_KEY_LENGTH, METADATA_DEPTH = 16 * 1024, 50, 64, 5
TOO_LARGE = f"Metadata must be at most {METADATA_BYTES // 1024} KiB"
TOO_DEEP = f"Metadata must be at most {METADATA_DEPTH} levels deep"


def trimmed(value: str) -> str:
    """Return the text without white space and invisible characters at its ends."""
    return value.strip(ENDS)


def identifier(value: str, max_length: int = 255) -> str:
    """Return a trimmed text that names an object, such as an external id in a query.

    Raises:
        ValueError: the text is too long, or contains a control character.
    """
    text = trimmed(value)
    if len(text) > max_length:
        raise ValueError(f"Must be at most {max_length} characters")
    if UNPRINTABLE.search(text):
        raise ValueError("Must not contain control characters")
    return text


def email(value: str, *, is_test: bool = False) -> str:
    """Return the trimmed address with the domain in lower case.

    Args:
        value: the address.
        is_test: accept domains reserved for tests.

    Raises:
        ValueError: the address is invalid.
    """
    return emails.checked(trimmed(value), is_test=is_test)


def phone(value: str, region: str | None = None) -> str:
    """Return a possible number in E.164, with its extension as ` x12`; any other as sent.

    Args:
        value: the number as written by people, in RFC 3966 (`tel:`), or in E.164.
        region: country of national numbers and of prefixes for calls abroad, as two letters. Without it, only a number
            with `+` can become E.164.

    Raises:
        ValueError: the text is not a phone number.
    """
    return phone_numbers.stored(trimmed(value), region)


def full_name(value: str) -> str:
    """Return the trimmed name in Unicode form NFC.

    Raises:
        ValueError: the name is invalid.
    """
    name = trimmed(unicodedata.normalize("NFC", value))
    # The sort order ignores invisible characters: a name of these alone would sort among the consumers without a name.
    if not 1 <= len(name) <= 255 or all(_is_invisible(letter) or letter in FILLERS for letter in name):  # noqa: PLR2004 (the limit in contract.md)
        raise ValueError("Name must be 1 to 255 characters")
    if UNPRINTABLE.search(name):
        raise ValueError("Name must not contain control characters")
    return name


def _is_invisible(character: str) -> bool:
    """Return whether a character shows nothing by itself: formatting, white space, selectors and joiners."""
    return unicodedata.category(character) in {"Cf", "Zs", "Zl", "Zp"} or character in INVISIBLE_MARKS


def external_id(value: str) -> str:
    """Return the external id without surrounding white space and invisible characters.

    Raises:
        ValueError: the external id is invalid.
    """
    value = trimmed(value)
    if not 1 <= len(value) <= 255:  # noqa: PLR2004 (the limit in contract.md)
        raise ValueError("External ID must be 1 to 255 characters")
    if not value.isascii() or not value.isprintable():
        _refuse_invisible(value)
    return value


def _refuse_invisible(value: str) -> None:
    """Refuse an external id that nobody could type again.

    Raises:
        ValueError: names the first control character or invisible character.
    """
    for character in value:
        is_invisible = character != " " and (_is_invisible(character) or character in FILLERS)
        if is_invisible or UNPRINTABLE.search(character):
            name = unicodedata.name(character, "control character")
            raise ValueError(f"External ID must not contain invisible characters: U+{ord(character):04X} ({name})")


def amount(value: str | Decimal) -> Decimal:
    """Return the exact amount, with the decimals sent.

    Raises:
        ValueError: the amount is invalid.
    """
    if isinstance(value, str) and not DECIMAL.fullmatch(value):
        raise ValueError("Must be a decimal number")
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError("Must be a decimal number")
    if number < 0:
        raise ValueError("Must be 0 or more")
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if exponent < -AMOUNT_DECIMALS or max(len(digits) + exponent, 0) + max(-exponent, 0) > AMOUNT_DIGITS:
        raise ValueError(f"Must have at most {AMOUNT_DECIMALS} decimals and {AMOUNT_DIGITS} digits")
    return abs(number.quantize(Decimal(1)) if exponent > 0 else number)


def quantity(value: float | str) -> Decimal:
    """Return the exact quantity, without trailing zeros.

    Raises:
        ValueError: the quantity is negative, too large, or has too many decimals.
    """
    number = Decimal(str(value))
    if not 0 <= number <= MAX_QUANTITY:
        raise ValueError(f"Must be a number from 0 to {MAX_QUANTITY}")
    rounded = round(number, QUANTITY_DECIMALS)
    if number != rounded:
        raise ValueError(f"Must have at most {QUANTITY_DECIMALS} decimals")
    return abs(rounded).normalize()


def currency(value: str) -> str:
    """Return the currency code in capitals. Withdrawn codes are valid, because orders may be old.

    Raises:
        ValueError: the code was never in ISO 4217.
    """
    code = trimmed(value).upper()
    if code not in CURRENCIES:
        raise ValueError("Must be an ISO 4217 currency code, such as USD")
    return code


def timestamp(value: str) -> datetime:
    """Parse a time; convert to UTC and truncate to milliseconds. A date alone is midnight in UTC.

    Raises:
        ValueError: the text is not a valid time.
    """
    if not RFC3339.fullmatch(value):
        raise ValueError("Must be a time in RFC 3339, such as 2024-11-01T10:00:00Z, or a date")
    try:
        moment = datetime.fromisoformat(value.upper())
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError("Must be a time that exists") from None
    if not EARLIEST <= moment <= LATEST:
        raise ValueError("Must be in the years 1 to 9999")
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata unchanged.

    Raises:
        ValueError: the metadata exceeds a limit.
    """
    if len(value) > METADATA_KEYS:
        raise ValueError(f"Metadata must have at most {METADATA_KEYS} keys")
    if any(len(key) > METADATA_KEY_LENGTH for key in value):
        raise ValueError(f"Metadata keys must be at most {METADATA_KEY_LENGTH} characters")
    size = len(msgspec.json.encode(value))
    if size > 2 * METADATA_BYTES:  # spares the walk; an expanded exponent can be shorter by a fifth
        raise ValueError(TOO_LARGE)
    for depth, item in _containers(value):
        if depth > METADATA_DEPTH:
            raise ValueError(TOO_DEEP)
        size += sum(_expanded_exponent(number) for number in item if isinstance(number, float))
    if size > METADATA_BYTES:
        raise ValueError(TOO_LARGE)
    return value


def _containers(value: object, depth: int = 1) -> Iterator[tuple[int, list[Any]]]:
    """Yield the depth and the values of each object and array, down to a level below the limit."""
    children = list(value.values()) if isinstance(value, dict) else value
    if isinstance(children, list):
        yield depth, children
        if depth <= METADATA_DEPTH:
            for child in children:
                yield from _containers(child, depth + 1)


def _expanded_exponent(number: float) -> int:
    """Return the bytes added to a number by jsonb, which expands exponents (1e308 becomes 309 digits)."""
    text = msgspec.json.encode(number).decode().lstrip("-")
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return 0
    power, decimals = int(exponent), len(mantissa.partition(".")[2])
    if power < 0:
        return len("0.") - power + decimals - len(text)
    return power + 1 + max(decimals - power + 1, 0) * (decimals > power) - len(text)


class Conventions(NamedTuple):
    """The conventions of an environment for the values of its consumers."""

    region: str | None = None
    """The country of national phone numbers, as two letters."""
    is_test: bool = False


class ConsumerField(NamedTuple):
    """A field of consumers that clients set, without metadata, which is merged key by key."""

    name: str
    """In the API, in filters, and in the header of an imported file."""
    column: str
    """In the table `consumers`, and in Python."""
    rule: Callable[[str, Conventions], Any]
    """Returns the value to store, or raises `ValueError`."""


CONSUMER_FIELDS = (
    ConsumerField("email", "email", lambda value, conventions: email(value, is_test=conventions.is_test)),
    ConsumerField("phone", "phone", lambda value, conventions: phone(value, conventions.region)),
    ConsumerField("fullName", "full_name", lambda value, _: full_name(value)),
    ConsumerField("externalId", "external_id", lambda value, _: external_id(value)),
)
"""The statements that store consumers, the filter language, and the importer take their fields from this list.

Each field here is text. A field of another type also needs a type in the filter language (`FIELDS` in
`infra/filters/conditions.py`) and terms (`infra/index/terms.py`).
"""
