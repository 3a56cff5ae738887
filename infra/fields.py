"""The rules for the fields of consumers and orders (contract.md §2, §3).

Each takes what was sent and returns what is stored; all raise `ValueError` with a sentence for the sender. The API
and the importer share them.
"""

import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec
import phonenumbers
from email_validator import EmailNotValidError, validate_email
from iso4217 import raw_table

from infra.phones import plain

# What any rule takes before the @: at most 64 characters, the words between single dots.
PLAIN_LOCAL = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*")
PHONE = re.compile(r"[0-9 +\-.()/x#]*")
# Controls, and the code points Unicode reserves as never being characters.
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
# A day inside what Python can hold, so that no time zone makes a stored time unreadable.
EARLIEST, LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
INVISIBLE_MARKS = frozenset(map(chr, [0x34F, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
METADATA_BYTES, METADATA_KEYS, METADATA_KEY_LENGTH, METADATA_DEPTH = 16 * 1024, 50, 64, 5
TOO_DEEP = f"Metadata must be at most {METADATA_DEPTH} levels deep"


def email(value: str) -> str:
    """The address as sent, its domain in lower case."""
    if len(value) > 254:  # noqa: PLR2004 (RFC 5321's limit)
        raise ValueError("Email must be at most 254 characters")
    local, _, domain = value.rpartition("@")
    # With plain text before the @, only the domain is in question, and addresses share few of those: that takes a
    # twentieth of the time. Other scripts stay out, for their length depends on how they are written.
    plain = PLAIN_LOCAL.fullmatch(local) and domain.isascii() and "xn--" not in domain.lower()
    if not (_valid_domain(domain) if plain else _valid_email(value)):
        raise ValueError("Invalid email format")
    return f"{local}@{domain.lower()}"


def _valid_email(value: str) -> bool:
    try:
        validate_email(value, check_deliverability=False, strict=True)
    except EmailNotValidError:
        return False
    return True


@lru_cache(maxsize=4096)
def _valid_domain(domain: str) -> bool:
    return _valid_email(f"a@{domain}")


def phone(value: str, region: str | None = None) -> str:
    """E.164 where the number can be one, else as sent.

    Args:
        value: digits and punctuation.
        region: two letters; national numbers are read as being of this country. None: only `+…` can be E.164.
    """
    if len(value) > 32 or not PHONE.fullmatch(value) or sum(map(str.isdigit, value)) < 3:  # noqa: PLR2004 (the contract's)
        raise ValueError("Invalid phone number")
    if plain(value):
        return value
    number = parse_phone(value, region)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) if number else value


def parse_phone(value: str, region: str | None = None) -> phonenumbers.PhoneNumber | None:
    """The number, if its length is one its country has; an extension, which E.164 would lose, makes it None."""
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return None
    possible = phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE
    return number if possible and not number.extension else None


def full_name(value: str) -> str:
    """The name in Unicode's NFC, without white space around it."""
    name = unicodedata.normalize("NFC", value).strip()
    # A name of nothing but characters that order ignores would sort among those without a name.
    if not 1 <= len(name) <= 255 or all(map(_is_invisible, name)):  # noqa: PLR2004 (the contract's)
        raise ValueError("Name must be 1 to 255 characters")
    if UNPRINTABLE.search(name):
        raise ValueError("Name must not contain control characters")
    return name


def _is_invisible(character: str) -> bool:
    """Formatting, white space, and the selectors and joiners that only act on a neighbour."""
    return unicodedata.category(character) in {"Cf", "Zs", "Zl", "Zp"} or character in INVISIBLE_MARKS


def external_id(value: str) -> str:
    if not 1 <= len(value) <= 255:  # noqa: PLR2004 (the contract's)
        raise ValueError("External ID must be 1 to 255 characters")
    return value


def amount(value: str | Decimal) -> Decimal:
    """The exact amount, with the decimals that were given."""
    if isinstance(value, str) and not DECIMAL.fullmatch(value):
        raise ValueError("must be a decimal number")
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError("must be a decimal number")
    if number < 0:
        raise ValueError("must be 0 or more")
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if exponent < -AMOUNT_DECIMALS or max(len(digits) + exponent, 0) + max(-exponent, 0) > AMOUNT_DIGITS:
        raise ValueError(f"must have at most {AMOUNT_DECIMALS} decimals and {AMOUNT_DIGITS} digits")
    return abs(number.quantize(Decimal(1)) if exponent > 0 else number)


def currency(value: str) -> str:
    if value not in CURRENCIES:
        raise ValueError("must be a currency code of ISO 4217")
    return value


def timestamp(value: str) -> datetime:
    """The moment in UTC, its milliseconds truncated; a bare date is its midnight in UTC."""
    if not RFC3339.fullmatch(value):
        raise ValueError("must be a time of RFC 3339, such as 2024-11-01T10:00:00Z, or a date")
    try:
        moment = datetime.fromisoformat(value.upper())
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be a time that exists") from None
    if not EARLIEST <= moment <= LATEST:
        raise ValueError("must be in the years 1 to 9999")
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def metadata(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) > METADATA_KEYS:
        raise ValueError(f"Metadata must have at most {METADATA_KEYS} keys")
    if any(len(key) > METADATA_KEY_LENGTH for key in value):
        raise ValueError(f"Metadata keys must be at most {METADATA_KEY_LENGTH} characters")
    size = len(msgspec.json.encode(value))
    for depth, item in _containers(value):
        if depth > METADATA_DEPTH:
            raise ValueError(TOO_DEEP)
        size += sum(_written_out(number) for number in item if isinstance(number, float))
    if size > METADATA_BYTES:
        raise ValueError("Metadata must be at most 16 KiB")
    return value


def _containers(value: object, depth: int = 1) -> Iterator[tuple[int, list[Any]]]:
    children = list(value.values()) if isinstance(value, dict) else value
    if isinstance(children, list):
        yield depth, children
        if depth <= METADATA_DEPTH:
            for child in children:
                yield from _containers(child, depth + 1)


def _written_out(number: float) -> int:
    """Bytes PostgreSQL's jsonb adds to a number by writing its exponent out (1e308 becomes 309 digits)."""
    text = repr(number)
    return len(f"{Decimal(text):f}") - len(text) if "e" in text else 0
