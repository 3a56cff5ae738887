"""JSON of the API and the commands: times, decimal numbers, and whole responses."""

import gc
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec

JSONObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]
Time = Annotated[str, msgspec.Meta(examples=["2024-11-01T10:00:00.000Z"], extra_json_schema={"format": "date-time"})]

WITH_SECONDS, WITH_MILLISECONDS = len("2024-11-01T10:00:00"), len("2024-11-01T10:00:00.000")


def time(moment: datetime) -> str:
    """Return a time in RFC 3339, with milliseconds. `moment` must be in UTC, as sessions of the database are."""
    text: str = msgspec.to_builtins(moment)  # five times as fast as `isoformat`
    return f"{text[:WITH_MILLISECONDS]}Z" if "." in text else f"{text[:WITH_SECONDS]}.000Z"


def without_trailing_zeros(value: Decimal) -> Decimal | int:
    """Remove trailing zeros, so that JSON shows `1234.5` in place of `1234.5000`."""
    return int(value) if value == int(value) else value.normalize()


def raw(text: str | None) -> msgspec.Raw | None:
    """Wrap JSON text from the database, to be embedded unchanged."""
    return None if text is None else msgspec.Raw(text.encode())


def _finite(text: str) -> float:
    """Convert a number.

    msgspec alone takes 6 µs for some numbers with an exponent: 60 ms for 256 KiB of them.
    """
    number = float(text)
    if math.isinf(number):
        raise ValueError("Number out of range")
    return number


decode = msgspec.json.Decoder(float_hook=_finite).decode
"""Decode JSON of a client. Raises `msgspec.MsgspecError`, or `UnicodeDecodeError`."""


def _as_stored(text: str) -> msgspec.Raw:
    """Return a number with a point or an exponent as `jsonb` stores the number: `1.50` stays, `1e2` becomes `100`."""
    number = Decimal(text)
    return msgspec.Raw(format(number or abs(number), "f").encode())


_decode_exactly = msgspec.json.Decoder(float_hook=_as_stored).decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def is_same_json(one: bytes | msgspec.Raw, other: bytes | msgspec.Raw) -> bool:
    """Return whether PostgreSQL stores two JSON texts as the same `jsonb`, and so shows them alike.

    The order of members, white space and escapes do not count. `1`, `1.0`, `1.00` and `true` are four values, and every
    digit counts, unlike in comparisons of Python's values.
    """
    return _encode_sorted(_decode_exactly(one)) == _encode_sorted(_decode_exactly(other))


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause the garbage collector for a short time in which JSON is decoded.

    Decoded JSON has no cycles, and the collector would visit its objects again and again: 70 ms for 256 KiB of arrays.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def as_json(response: msgspec.Struct | Iterable[msgspec.Struct]) -> str:
    """Return a response as a line of JSON, with the API's names and times."""
    plain = msgspec.to_builtins(response, builtin_types=(datetime,))
    return json.dumps(plain, ensure_ascii=False, default=time)
