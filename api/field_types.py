"""Types of request fields, shared by several resources.

Each type has limits for msgspec, a rule from `infra/fields.py` as `check` (called by `api/validation.py`), and a
description for the OpenAPI document.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgspec

from api.auth import Requester
from api.error_codes import ErrorCode
from api.errors import Fault
from infra import fields
from infra.filters import language

Rule = Callable[[str, Requester], Any]


def or_null(rule: Rule) -> Rule:
    """Return a rule that makes an empty text null, and follows the given rule for all other texts."""
    return lambda value, requester: rule(value, requester) if fields.trimmed(value) else None


Email = Annotated[
    str,
    msgspec.Meta(
        description="A valid e-mail address, unique in the environment. Case, width, and the form of the domain "
        "(Unicode or Punycode) do not distinguish addresses. The address is trimmed, and the domain stored in lower "
        "case. Test keys also accept domains in `.test`, `.invalid` and `.localhost`.",
        examples=["jose@example.com"],
        extra={
            "check": or_null(lambda value, requester: fields.email(value, is_test=requester.is_test)),
            "code": ErrorCode.INVALID_EMAIL,
        },
        # No format: an empty text is null, and matches none.
        extra_json_schema={"maxLength": 254},
    ),
]
Phone = Annotated[
    str,
    msgspec.Meta(
        description="At most 40 characters: digits of any script, spaces, dashes and dots of any kind, `+()/`, and "
        "an extension after `x`, `#`, `ext.` or `;ext=`, with at least 3 digits. A prefix `tel:` is removed. A "
        "possible international number is stored in E.164, with its extension as in `+442079460000 x12`. If the "
        "organization has a region, so is a national number, and a number with the prefix for calls abroad. Any other "
        "is stored as sent.",
        examples=["+442079460000"],
        extra={
            "check": or_null(lambda value, requester: fields.phone(value, requester.region)),
            "code": ErrorCode.INVALID_PHONE,
        },
        extra_json_schema={"maxLength": 40},
    ),
]
FullName = Annotated[
    str,
    msgspec.Meta(
        description="1 to 255 characters, without control characters. It is trimmed and stored in Unicode form NFC.",
        examples=["José García"],
        extra={"check": or_null(lambda value, _: fields.full_name(value)), "code": ErrorCode.INVALID_NAME},
    ),
]


def _encoded(value: Any, rule: Callable[[dict[str, Any]], dict[str, Any]] = lambda members: members) -> msgspec.Raw:
    """Return an object as JSON, if it keeps the rule.

    Raises:
        ValueError: the value is not an object, breaks the rule, or is nested too deeply to be encoded.
    """
    try:
        return msgspec.Raw(msgspec.json.encode(rule(msgspec.convert(value, dict[str, Any]))))
    except RecursionError:
        raise ValueError(fields.TOO_DEEP) from None


# Kept as JSON: a batch can have 8 MB of metadata, which would be many times larger as objects. The garbage collector
# would visit these objects again and again.
Metadata = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        description="A JSON object of your own: at most 16 KiB, 50 top-level keys of at most 64 characters, and 5 "
        "levels.",
        extra={"parse": lambda value, _: _encoded(value, fields.metadata), "code": ErrorCode.INVALID_METADATA},
        extra_json_schema={"type": "object", "maxProperties": 50, "propertyNames": {"maxLength": 64}},
    ),
]
MetadataChange = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        extra={"parse": lambda value, _: _encoded(value), "code": ErrorCode.INVALID_METADATA},
        extra_json_schema={"type": "object"},
    ),
]
ExternalId = Annotated[
    str,
    msgspec.Meta(
        description="Your own id, unique in the environment: 1 to 255 characters after trimming, without control and "
        "invisible characters.",
        examples=["customer-17850"],
        extra={"check": or_null(lambda value, _: fields.external_id(value)), "code": ErrorCode.INVALID_EXTERNAL_ID},
        extra_json_schema={"maxLength": 255},
    ),
]
Filter = Annotated[
    str,
    msgspec.Meta(
        max_length=language.MAX_LENGTH,
        description="Conditions on fields: `field:value` (equal), `field:>=100`, `field:1..5` (range, ends included), "
        "`field:~text` (contains, ignoring case and accents), `field:*` (not null), `metadata.key:value`. Combine them "
        "with `AND`, `OR`, `NOT` (in capitals) and brackets. In metadata, numbers and dates are compared. "
        "Put a value that contains spaces, brackets or quotes in quotes.",
        examples=["totalOrderValue:>=100 AND NOT metadata.tier:gold"],
    ),
]


def filter_faults(text: str | msgspec.UnsetType | None) -> Iterator[Fault]:
    if isinstance(text, str):
        try:
            language.parse(text)
        except language.FilterError as error:
            yield from (Fault("filter", fault, ErrorCode.INVALID_FILTER) for fault in error.faults)
