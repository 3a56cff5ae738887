"""The rules for a consumer's fields (contract.md §2): each takes what was sent and returns what is stored.

All raise `ValueError` with a sentence for the sender. The API and the importer share them.
"""

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import phonenumbers
from email_validator import EmailNotValidError, validate_email

PHONE = re.compile(r"[0-9 +\-.()/x#]*")
# Controls, and the code points Unicode reserves as never being characters.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(f"{chr(p + 0xFFFE)}{chr(p + 0xFFFF)}" for p in range(0, 0x110000, 0x10000))
    + "]"
)
METADATA_BYTES, METADATA_KEYS, METADATA_KEY_LENGTH, METADATA_DEPTH = 16 * 1024, 50, 64, 5


def email(value: str) -> str:
    """The address as sent, its domain in lower case."""
    if len(value) > 254:  # noqa: PLR2004 (RFC 5321's limit)
        raise ValueError("Email must be at most 254 characters")
    try:
        validate_email(value, check_deliverability=False, strict=True)
    except EmailNotValidError:
        raise ValueError("Invalid email format") from None
    local, _, domain = value.rpartition("@")
    return f"{local}@{domain.lower()}"


def phone(value: str, region: str | None = None) -> str:
    """E.164 where the number can be one, else as sent.

    Args:
        value: digits and punctuation.
        region: two letters; national numbers are read as being of this country. None: only `+…` can be E.164.
    """
    if len(value) > 32 or not PHONE.fullmatch(value) or sum(map(str.isdigit, value)) < 3:  # noqa: PLR2004 (the contract's)
        raise ValueError("Invalid phone number")
    number = parse_phone(value, region)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) if number else value


def parse_phone(value: str, region: str | None = None) -> phonenumbers.PhoneNumber | None:
    """The number, if its length is one its country has; an extension, which E.164 would lose, makes it None."""
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return None
    possible = (
        phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE
    )
    return number if possible and not number.extension else None


def full_name(value: str) -> str:
    """The name in Unicode's NFC, without white space around it."""
    name = unicodedata.normalize("NFC", value).strip()
    if not 1 <= len(name) <= 255:  # noqa: PLR2004 (the contract's)
        raise ValueError("Name must be 1 to 255 characters")
    if UNPRINTABLE.search(name):
        raise ValueError("Name must not contain control characters")
    return name


def external_id(value: str) -> str:
    if not 1 <= len(value) <= 255:  # noqa: PLR2004 (the contract's)
        raise ValueError("External ID must be 1 to 255 characters")
    return value


def metadata(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) > METADATA_KEYS:
        raise ValueError(f"Metadata must have at most {METADATA_KEYS} keys")
    if any(len(key) > METADATA_KEY_LENGTH for key in value):
        raise ValueError(f"Metadata keys must be at most {METADATA_KEY_LENGTH} characters")
    size = len(msgspec.json.encode(value))
    for depth, item in _containers(value):
        if depth > METADATA_DEPTH:
            raise ValueError(f"Metadata must be at most {METADATA_DEPTH} levels deep")
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
