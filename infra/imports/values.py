"""Convert texts of a file: typed metadata, times, items of an order."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from infra import fields
from infra.order_items import stored_quantity

JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# Floats keep this many digits; a longer number is an id.
EXACT_DIGITS = 15
LITERALS = {"true": True, "false": False, "null": None}
BOOLEANS = dict.fromkeys(("true", "yes", "1", "t", "y"), True) | dict.fromkeys(("false", "no", "0", "f", "n"), False)
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
OFFSET_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})(T|\s+)(?P<hour>[0-9]{1,2})(?P<minute>:[0-9]{2})"
    r"(?P<second>:[0-9]{2}([.,][0-9]+)?)?\s*"
    r"((?P<zone>Z|UTC|GMT|(UTC|GMT)?[+-][0-9]{2}(:?[0-9]{2})?|(UTC|GMT)[+-][0-9])"
    r"(\[[A-Z0-9_/+-]+\])?)?",  # Java adds the name of the zone
    re.IGNORECASE,
)
MAX_ITEMS = 200


def automatic(text: str) -> Any:
    """Return a number, boolean or null as JSON reads it; another text, and a number of 16 digits or more, unchanged."""
    plain = text.strip()
    if plain in LITERALS:
        return LITERALS[plain]
    match = JSON_NUMBER.fullmatch(plain)
    if not match:
        return text
    mantissa = plain[: match.start(3)] if match[3] else plain
    if sum(map(str.isdigit, mantissa)) > EXACT_DIGITS:
        return text
    if not match[2] and not match[3]:
        return int(plain)
    number = float(plain)
    is_exact = math.isfinite(number) and (number != 0 or not mantissa.strip("-0."))
    return number if is_exact else text


def number(text: str) -> Any:
    """Return the number, exactly.

    Raises:
        ValueError: the text is not a decimal number.
    """
    plain = text.strip()
    if not fields.DECIMAL.fullmatch(plain):
        raise ValueError(f"must be a number, not {text!r}")
    return msgspec.Raw(f"{Decimal(plain):f}".encode())


def boolean(text: str) -> bool:
    """Return the boolean for true, yes or 1, and for false, no or 0; a first letter is enough.

    Raises:
        ValueError: the text is another word.
    """
    plain = text.strip().lower()
    if plain not in BOOLEANS:
        raise ValueError(f"must be true, yes, 1, false, no or 0, not {text!r}")
    return BOOLEANS[plain]


def texts(text: str) -> list[str]:
    """Return the parts of a list with commas, such as tags."""
    return [part for part in map(str.strip, text.split(",")) if part]


TYPES: Mapping[str, Callable[[str], Any]] = {
    "": automatic,
    "text": lambda text: text,
    "number": number,
    "boolean": boolean,
    "list": texts,
}
"""Conversion by the type of a metadata column, such as `metadata.points:number`."""


@lru_cache(maxsize=1)
def time_zone(name: str) -> ZoneInfo:
    """Return the time zone.

    Raises:
        ValueError: the zone is unknown.
    """
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ValueError(f"--timezone {name} is unknown: use a name such as Europe/London or UTC") from None


def moment(text: str, zone: str | None = None, formats: Sequence[str] = ()) -> datetime:
    """Parse a time with any unambiguous offset, or a date.

    Args:
        text: a date and a time, with an offset such as Z, UTC, +01:00, +0100, +01, GMT+0100.
        zone: name of the time zone of dates, and of times without an offset; without it, a date is midnight UTC.
        formats: further formats of the time without an offset, for `datetime.strptime`.

    Raises:
        ValueError: the text is not a valid time, or has no offset and `zone` is None, or the clocks of the zone show
            the time twice or never.
    """
    if not formats and ":" in text and fields.RFC3339.fullmatch(text):
        return fields.timestamp(text)
    local = _local(text, zone is not None, formats)
    if local is None:
        return fields.timestamp(_with_offset(text))
    if zone is None:
        raise ValueError(
            f"{text!r} has no time zone: add an offset such as +01:00, or name the zone of all times by --timezone"
        )
    is_date = ":" not in text
    moments = _moments(local, time_zone(zone), is_date=is_date)
    if not moments:
        raise ValueError(f"{text!r} does not exist in the time zone {zone}")
    if len(moments) > 1 and not is_date:
        written = " or ".join(moment.astimezone(time_zone(zone)).isoformat() for moment in moments)
        raise ValueError(f"{text!r} is two times in the time zone {zone}: write {written}")
    return fields.timestamp(moments[0].isoformat())


def _moments(local: datetime, zone: ZoneInfo, *, is_date: bool) -> list[datetime]:
    """Return the times, in UTC and in order, when the clocks of a zone show a time: two in the hour after which they
    are put back. For a date, also the beginning of a day without a midnight, where they are put forward.
    """
    moments: list[datetime] = []
    for fold in (0, 1):
        try:
            moment = local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
            shown = moment.astimezone(zone).replace(tzinfo=None)
        except OverflowError:
            continue
        is_same = shown.date() == local.date() if is_date else shown == local
        if is_same and moment not in moments:
            moments.append(moment)
    return moments


def _local(text: str, has_zone: bool, formats: Sequence[str]) -> datetime | None:  # noqa: FBT001 (a private helper)
    """Return the time without an offset; None if the text has an offset, or is not a time."""
    match = OFFSET_TIME.fullmatch(text)
    if match and not match["zone"]:
        try:
            return datetime.fromisoformat(_clock(match))
        except ValueError:
            return None
    if has_zone and DATE.fullmatch(text):
        formats = ("%Y-%m-%d",)
    for form in formats:
        try:
            return datetime.strptime(text, form)  # noqa: DTZ007 (the caller adds the zone)
        except ValueError:
            continue
    return None


def _with_offset(text: str) -> str:
    """Return a time with an offset in RFC 3339; another text unchanged."""
    match = OFFSET_TIME.fullmatch(text)
    if not match or not match["zone"]:
        return text
    offset = match["zone"].upper().removeprefix("UTC").removeprefix("GMT").replace(":", "")
    if offset in ("", "Z"):
        return _clock(match) + "Z"
    return f"{_clock(match)}{offset[0]}{offset[1:3].zfill(2)}:{offset[3:] or '00'}"


def _clock(match: re.Match[str]) -> str:
    second = (match["second"] or ":00").replace(",", ".")
    return f"{match['date']}T{match['hour'].zfill(2)}{match['minute']}{second}"


class _Item(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    product_id: str
    quantity: int | float | str
    variant_id: str | None = None
    unit_amount: int | float | str | None = None


_decode_items = msgspec.json.Decoder(list[_Item]).decode


def items(text: str) -> str:
    """Return the items of an order as the API stores them, from a JSON array.

    Raises:
        ValueError: the text is not an array of items, or an item is invalid.
    """
    try:
        decoded = _decode_items(text)
    except msgspec.MsgspecError as error:
        raise ValueError(f"must be a JSON array of objects with productId, quantity and unitAmount: {error}") from None
    if len(decoded) > MAX_ITEMS:
        raise ValueError(f"must be at most {MAX_ITEMS}")
    return msgspec.json.encode([_item(item) for item in decoded]).decode()


def _item(item: _Item) -> dict[str, Any]:
    product, quantity, price = fields.trimmed(item.product_id), str(item.quantity), item.unit_amount
    if not 1 <= len(product) <= 255:  # noqa: PLR2004 (the limit in contract.md)
        raise ValueError("productId must be 1 to 255 characters")
    if not fields.DECIMAL.fullmatch(quantity):
        raise ValueError(f"quantity must be a number, not {quantity!r}")
    try:
        count = fields.quantity(quantity)
    except ValueError as error:
        raise ValueError(f"quantity {str(error).replace('Must', 'must', 1)}") from None
    return {
        "productId": product,
        "variantId": item.variant_id,
        **stored_quantity(count),
        "unitAmount": None if price is None else f"{fields.amount(str(price)):f}",
    }
