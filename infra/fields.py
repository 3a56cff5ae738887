"""Rules for the fields of consumers and orders (contract.md §2, §3), shared by the API and the importer.

Each rule takes the value sent, and returns the value to store or raises `ValueError` with a message for the client.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import phonenumbers
from email_validator import EmailNotValidError, validate_email
from iso4217 import raw_table

from infra.phones import parse_plain

# A local part valid by every rule: at most 64 characters, words separated by single dots.
PLAIN_LOCAL = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*")
PHONE = re.compile(r"[0-9 +\-.()/x#]*")
# Control characters, and Unicode's noncharacters.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(f"{chr(p + 0xFFFE)}{chr(p + 0xFFFF)}" for p in range(0, 0x110000, 0x10000))
    + "]"
)
DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
AMOUNT_DIGITS, AMOUNT_DECIMALS = 15, 4
CURRENCIES = frozenset(code for code in raw_table if code)
RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?"
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


def email(value: str) -> str:
    """Return the address with the domain in lower case.

    Raises:
        ValueError: the address is invalid.
    """
    if len(value) > 254:  # noqa: PLR2004 (RFC 5321's limit)
        raise ValueError("Email must be at most 254 characters")
    local, _, domain = value.rpartition("@")
    # If the local part is plain, only the domain and the length must be validated. Few domains occur, so the cache
    # makes this 20 times faster, and 100 times faster for an internationalized domain.
    if not (_valid_length(local, domain) if PLAIN_LOCAL.fullmatch(local) else _valid_email(value)):
        raise ValueError("Invalid email format")
    return f"{local}@{domain.lower()}"


def _valid_email(value: str) -> bool:
    try:
        validate_email(value, check_deliverability=False, strict=True)
    except EmailNotValidError:
        return False
    return True


def _valid_length(local: str, domain: str) -> bool:
    """Return whether the domain is valid, and the address short enough in each form of the domain."""
    forms = _domain_forms(domain)
    return bool(forms) and all(len(f"{local}@{form}".encode()) <= 254 for form in forms)  # noqa: PLR2004 (RFC 5321)


@lru_cache(maxsize=4096)
def _domain_forms(domain: str) -> tuple[str, ...]:
    """Return a domain as sent, in ASCII and in Unicode; nothing if the domain is invalid."""
    try:
        address = validate_email(f"a@{domain}", check_deliverability=False, strict=True)
    except EmailNotValidError:
        return ()
    return domain, address.ascii_domain, address.domain


def phone(value: str, region: str | None = None) -> str:
    """Return a possible number in E.164, any other unchanged.

    Args:
        value: digits and punctuation.
        region: country of national numbers, as two letters. Without it, only a number with `+` can become E.164.

    Raises:
        ValueError: the text is not a phone number.
    """
    if len(value) > 32 or not PHONE.fullmatch(value) or sum(map(str.isdigit, value)) < 3:  # noqa: PLR2004 (the limit in contract.md)
        raise ValueError("Invalid phone number")
    if parse_plain(value):
        return value
    number = parse_phone(value, region)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) if number else value


def parse_phone(value: str, region: str | None = None) -> phonenumbers.PhoneNumber | None:
    """Parse a phone number. Return None for a length that is impossible in the country, and for an extension, which
    E.164 cannot hold.
    """
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return None
    possible = phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE
    return number if possible and not number.extension else None


def full_name(value: str) -> str:
    """Return the name in Unicode form NFC, without surrounding white space.

    Raises:
        ValueError: the name is invalid.
    """
    name = unicodedata.normalize("NFC", value).strip()
    # The sort order ignores invisible characters: a name of these alone would sort among the consumers without a name.
    if not 1 <= len(name) <= 255 or all(map(_is_invisible, name)):  # noqa: PLR2004 (the limit in contract.md)
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


def currency(value: str) -> str:
    """Return the currency code unchanged.

    Raises:
        ValueError: the code is not in ISO 4217.
    """
    if value not in CURRENCIES:
        raise ValueError("Must be an ISO 4217 currency code, such as USD")
    return value


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


class ConsumerField(NamedTuple):
    """A field of consumers that clients set, without metadata, which is merged key by key."""

    name: str
    """In the API, in filters, and in the header of an imported file."""
    column: str
    """In the table `consumers`, and in Python."""
    rule: Callable[[str, str | None], Any]
    """Takes the text in a file and the organization's region; returns the value to store, or raises `ValueError`."""


CONSUMER_FIELDS = (
    ConsumerField("email", "email", lambda value, _: email(value)),
    ConsumerField("phone", "phone", phone),
    ConsumerField("fullName", "full_name", lambda value, _: full_name(value)),
    ConsumerField("externalId", "external_id", lambda value, _: external_id(value)),
)
"""The statements that store consumers, the filter language, and the importer take their fields from this list.

Each field here is text. A field of another type also needs a type in the filter language (`FIELDS` in
`infra/filters/conditions.py`) and terms (`infra/index/terms.py`).
"""
