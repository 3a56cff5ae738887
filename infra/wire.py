"""JSON of the API and the commands: times, decimal numbers, and whole responses."""

import json
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec

JSONObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]
Time = Annotated[str, msgspec.Meta(examples=["2024-11-01T10:00:00.000Z"], extra_json_schema={"format": "date-time"})]


def time(moment: datetime) -> str:
    """Return a time in RFC 3339, with milliseconds. `moment` must be in UTC, as sessions of the database are."""
    return moment.isoformat("T", "milliseconds")[:23] + "Z"


def without_trailing_zeros(value: Decimal) -> Decimal | int:
    """Remove trailing zeros, so that JSON shows `1234.5` in place of `1234.5000`."""
    return int(value) if value == int(value) else value.normalize()


def raw(text: str | None) -> msgspec.Raw | None:
    """Wrap JSON text from the database, to be embedded unchanged."""
    return None if text is None else msgspec.Raw(text.encode())


def as_json(response: msgspec.Struct | Iterable[msgspec.Struct]) -> str:
    """Return a response as a line of JSON, with the API's names and times."""
    plain = msgspec.to_builtins(response, builtin_types=(datetime,))
    return json.dumps(plain, ensure_ascii=False, default=time)
