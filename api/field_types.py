"""Types of fields that several resources share: what is allowed, and how the OpenAPI document shows it."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from api.errors import Fault
from infra import fields
from infra.filters import language

Email = Annotated[
    str,
    msgspec.Meta(
        max_length=254,
        description="A valid address. Kept as sent, with its domain in lower case; unique ignoring case.",
        examples=["jose@example.com"],
        extra={"check": lambda value, _: fields.email(value)},
        extra_json_schema={"format": "idn-email"},
    ),
]
Phone = Annotated[
    str,
    msgspec.Meta(
        max_length=32,
        description="Digits, spaces and `+-.()/x#`. Stored as E.164 where it can be an international number, or a "
        "national one of the organization's region; else as sent.",
        examples=["+442079460000"],
        extra={"check": lambda value, caller: fields.phone(value, caller.region)},
        extra_json_schema={"minLength": 3, "pattern": r"^[0-9 +\-.()/x#]*$"},
    ),
]
FullName = Annotated[
    str,
    msgspec.Meta(
        description="1 to 255 characters after trimming, in Unicode's NFC.",
        examples=["José García"],
        extra={"check": lambda value, _: fields.full_name(value)},
        extra_json_schema={"minLength": 1},
    ),
]
Metadata = Annotated[
    dict[str, Any],
    msgspec.Meta(
        description="At most 16 KiB, 50 keys of 64 characters, 5 levels deep.",
        extra={"check": lambda value, _: fields.metadata(value)},
        extra_json_schema={"maxProperties": 50, "propertyNames": {"maxLength": 64}},
    ),
]
ExternalId = Annotated[
    str,
    msgspec.Meta(
        description="1 to 255 characters; unique.",
        examples=["customer-17850"],
        extra={"check": lambda value, _: fields.external_id(value)},
        extra_json_schema={"minLength": 1, "maxLength": 255},
    ),
]
Filter = Annotated[
    str,
    msgspec.Meta(
        max_length=language.MAX_LENGTH,
        description="Conditions: `field:value`, `field:>=100`, `field:1..5`, `field:~text` (contains), `field:*` (is "
        "there), `metadata.key:value`; with `AND`, `OR`, `NOT` and brackets. Values with spaces stand in quotes.",
        examples=["totalOrderValue:>=100 AND NOT metadata.tier:gold"],
    ),
]


def filter_faults(given: str | msgspec.UnsetType | None) -> Iterator[Fault]:
    if isinstance(given, str):
        try:
            language.parse(given)
        except language.FilterError as error:
            yield from (Fault("filter", fault) for fault in error.faults)
