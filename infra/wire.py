"""JSON as the API and the commands write it: times, numbers, and whole answers."""

import json
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec

JSONObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]
Time = Annotated[str, msgspec.Meta(examples=["2024-11-01T10:00:00.000Z"], extra_json_schema={"format": "date-time"})]


def time(moment: datetime) -> str:
    """RFC 3339, in UTC with milliseconds; `moment` is in UTC, as the database's sessions are."""
    return moment.isoformat("T", "milliseconds")[:23] + "Z"


def number(value: Decimal) -> Decimal | int:
    """The value without trailing zeros, so that JSON shows `1234.5`."""
    return int(value) if value == int(value) else value.normalize()


def as_json(answer: msgspec.Struct | Iterable[msgspec.Struct]) -> str:
    """One line, with names and times as the API writes them."""
    plain = msgspec.to_builtins(answer, builtin_types=(datetime,))
    return json.dumps(plain, ensure_ascii=False, default=time)
