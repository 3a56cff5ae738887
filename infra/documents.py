"""The documents of the search index: names, mapping, analysis, and how a row becomes one.

The one place that knows them. Incremental indexing and full rebuilds use the same functions.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

import msgspec
import phonenumbers

from infra.analysis import ANALYSIS
from infra.phones import plain
from infra.terms import terms

DOCUMENT_VERSION = 3
"""Moves with every change of what a document holds. A worker never writes a generation newer than this."""

MONEY_UNIT = 10_000
"""Money is a `long` of ten-thousandths: paging by a `scaled_float` loses rows."""

EXTENSION = re.compile("[x#]")

UNSPACED_FROM = "\u0e00"
"""No script below has words without spaces between them (`infra.analysis`)."""

COLUMNS = """
    c.id, c.environment_id, c.version, c.email, c.email_key, c.phone, c.full_name, c.metadata::text, c.external_id,
    c.total_orders, c.total_order_value, c.last_order_at, c.created_at, c.updated_at"""
"""The columns of `consumers AS c` that make a `ConsumerRow`, in its order."""

AUDIENCE_IDS = """
    ARRAY(SELECT m.audience_id FROM audience_members m WHERE m.consumer_id = c.id ORDER BY m.audience_id)"""


class ConsumerRow(NamedTuple):
    """A row of `consumers`; `metadata` is JSON text, `total_order_value` in the environment's currency."""

    id: str
    environment_id: int
    version: int
    email: str | None
    email_key: str | None
    phone: str | None
    full_name: str | None
    metadata: str | None
    external_id: str | None
    total_orders: int
    total_order_value: Decimal
    last_order_at: datetime | None
    created_at: datetime
    updated_at: datetime


JSONObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]
Time = Annotated[str, msgspec.Meta(examples=["2024-11-01T10:00:00.000Z"], extra_json_schema={"format": "date-time"})]


class Consumer(msgspec.Struct, rename="camel"):
    """A consumer as the API shows it."""

    id: Annotated[str, msgspec.Meta(pattern="^cons_[0-9A-HJKMNP-TV-Z]{26}$")]
    email: str | None
    phone: str | None
    full_name: str | None
    metadata: JSONObject | None
    external_id: str | None
    total_orders: int
    total_order_value: Decimal | int
    last_order_at: Time | None
    created_at: Time
    updated_at: Time


class Document(msgspec.Struct, rename="camel"):
    """A consumer in the index. Nulls are explicit: that is what sorts them last."""

    row: msgspec.Raw
    id: str
    environment_id: str
    version: int
    deleted: bool
    email: str | None
    phone: str | None
    phone_digits: Sequence[str]
    phone_reversed: Sequence[str]
    full_name: str | None
    name_runs: str | None
    external_id: str | None
    total_orders: int
    total_order_value: int
    last_order_at: str | None
    created_at: str
    updated_at: str
    audience_ids: Sequence[str]
    texts: Sequence[str]
    numbers: Sequence[str]
    contents: Sequence[str]


class Tombstone(msgspec.Struct, rename="camel"):
    """A deleted consumer. It stays for a while: OpenSearch forgets versions of deletes when a node restarts."""

    id: str
    environment_id: str
    version: int
    deleted_at: str
    deleted: bool = True


_encode = msgspec.json.Encoder(decimal_format="number").encode


def consumer_json(row: ConsumerRow) -> bytes:
    """The API's JSON of a consumer: what a write answers and what the index holds are the same bytes."""
    return _encode(_consumer(row))


def document(row: ConsumerRow, audience_ids: Sequence[str]) -> bytes:
    """The document of a consumer, as JSON."""
    shown = _consumer(row)
    texts = {"email": row.email, "phone": row.phone, "fullName": row.full_name, "externalId": row.external_id}
    compared = terms(texts, row.metadata)
    digits = phone_digits(row.phone) if row.phone else ()
    return _encode(
        Document(
            row=msgspec.Raw(_encode(shown)),
            id=row.id,
            environment_id=str(row.environment_id),
            version=row.version,
            deleted=False,
            email=row.email_key,
            phone=row.phone,
            phone_digits=digits,
            phone_reversed=reversed_digits(digits),
            full_name=row.full_name,
            name_runs=_runs(row.full_name),
            external_id=row.external_id,
            total_orders=row.total_orders,
            total_order_value=int(row.total_order_value * MONEY_UNIT),
            last_order_at=shown.last_order_at,
            created_at=shown.created_at,
            updated_at=shown.updated_at,
            audience_ids=audience_ids,
            texts=compared.texts,
            numbers=compared.numbers,
            contents=compared.contents,
        )
    )


def tombstone(consumer_id: str, environment_id: int, version: int, deleted_at: datetime) -> bytes:
    """The document of a consumer whose row is gone, as JSON."""
    return _encode(Tombstone(consumer_id, str(environment_id), version, time(deleted_at)))


def time(moment: datetime) -> str:
    """RFC 3339, in UTC with milliseconds; `moment` is in UTC, as the database's sessions are."""
    return moment.isoformat("T", "milliseconds")[:23] + "Z"


def number(value: Decimal) -> Decimal | int:
    """The value without trailing zeros, so that JSON shows `1234.5`."""
    return int(value) if value == int(value) else value.normalize()


def phone_digits(phone: str) -> list[str]:
    """The digits of a stored number as people may type them: international, national, national without prefix.

    With an extension, they may leave it out.

    >>> phone_digits("+447400123456")
    ['447400123456', '07400123456', '7400123456']
    """
    if found := plain(phone):
        return list(dict.fromkeys(found.digits()))
    written = [phone, EXTENSION.split(phone)[0]]
    digits = ["".join(filter(str.isdigit, form)) for whole in written for form in (whole, *_nationally(whole))]
    return [form for form in dict.fromkeys(digits) if form]


def reversed_digits(digits: Sequence[str]) -> list[str]:
    """From their ends. One that is a digit and an end of the first is left out: its ends are there, but for itself.

    >>> reversed_digits(["447400123456", "07400123456", "7400123456"])
    ['654321004744']
    """
    first = digits[0] if digits else ""
    return [form[::-1] for form in digits if form is first or not first.endswith(form[1:])]


def _runs(name: str | None) -> str | None:
    """A name in which there may be words without spaces between them."""
    return name if name and not name.isascii() and max(name) >= UNSPACED_FROM else None


def _nationally(phone: str) -> list[str]:
    """An international number as it is written inside its country, with and without a prefix."""
    if not phone.startswith("+"):
        return []
    try:
        parsed = phonenumbers.parse(phone)
    except phonenumbers.NumberParseException:
        return []
    national = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
    return [national, phonenumbers.national_significant_number(parsed)]


def _consumer(row: ConsumerRow) -> Consumer:
    return Consumer(
        id=row.id,
        email=row.email,
        phone=row.phone,
        full_name=row.full_name,
        metadata=None if row.metadata is None else msgspec.Raw(row.metadata.encode()),
        external_id=row.external_id,
        total_orders=row.total_orders,
        total_order_value=number(row.total_order_value),
        last_order_at=time(row.last_order_at) if row.last_order_at else None,
        created_at=time(row.created_at),
        updated_at=time(row.updated_at),
    )


def read_alias(prefix: str) -> str:
    """What readers search: the live generation without its tombstones."""
    return f"{prefix}-read"


def index_name(prefix: str, number: int) -> str:
    return f"{prefix}-{number:06d}"


def write_alias(index: str) -> str:
    """What the drain writes to: should the index vanish, a write fails instead of creating another."""
    return f"{index}-write"


def _text(analyzer: str, search_analyzer: str | None = None, *, options: str = "docs") -> dict[str, Any]:
    """A field that is matched, never scored."""
    field = {"type": "text", "analyzer": analyzer, "norms": False, "index_options": options}
    return field | {"search_analyzer": search_analyzer} if search_analyzer else field


def _sorted(kind: str, first: str, last: str, **options: Any) -> dict[str, Any]:
    """Two sub-fields to sort by, each with its own stand-in for null, so that nulls come last in both directions.
    (On the field itself a stand-in would make `exists` and ranges lie. A keyword by itself needs none.)
    """
    field = {"type": kind, "index": False, **options}
    return {"asc": field | {"null_value": last}, "desc": field | {"null_value": first}}


DATE_FORMAT = "strict_date_time||epoch_millis"
KEYWORD: dict[str, Any] = {"type": "keyword"}

MAPPING: dict[str, Any] = {
    "dynamic": "strict",
    "_meta": {"documentVersion": DOCUMENT_VERSION},
    "properties": {
        "row": {"type": "object", "enabled": False},
        "id": KEYWORD,
        "environmentId": KEYWORD,
        "version": {"type": "long"},
        "deleted": {"type": "boolean"},
        "deletedAt": {"type": "date", "format": DATE_FORMAT},
        "email": KEYWORD
        | {
            "fields": {
                "whole": _text("address"),
                "parts": _text("parts", options="positions"),
                "starts": _text("part_starts", "parts", options="positions"),
            }
        },
        "phone": KEYWORD,
        "phoneDigits": KEYWORD | {"fields": {"starts": _text("digit_starts", "keyword")}},
        # For their ends; what `reversed_digits` leaves out is found by `starts`.
        "phoneReversed": _text("digit_starts", "keyword"),
        "fullName": _text("words", options="positions")
        | {
            "fields": {
                "whole": _text("whole_name"),
                "starts": _text("word_starts", "words"),
                **_sorted("icu_collation_keyword", "", "\uffff"),
            }
        },
        # Where a script has no spaces, the start of a word is seldom split as the word is. Null for others.
        "nameRuns": _text("run_starts", "runs"),
        "externalId": KEYWORD | {"fields": {"folded": KEYWORD | {"normalizer": "folded"}}},
        "totalOrders": {"type": "integer"},
        "totalOrderValue": {"type": "long"},
        # The stand-ins are the years 0 and 10000: a consumer's own last order is between them.
        "lastOrderAt": {
            "type": "date",
            "format": DATE_FORMAT,
            "fields": _sorted("date", "-62167219200000", "253402300800000", format=DATE_FORMAT),
        },
        "createdAt": {"type": "date", "format": DATE_FORMAT},
        "updatedAt": {"type": "date", "format": DATE_FORMAT},
        "audienceIds": KEYWORD,
        # What conditions compare (`infra.terms`).
        "texts": KEYWORD | {"doc_values": False},
        "numbers": KEYWORD | {"doc_values": False},
        "contents": {"type": "wildcard", "doc_values": True},
    },
}

INDEX_SETTINGS: dict[str, Any] = {
    "number_of_shards": 1,
    "auto_expand_replicas": "0-1",
    "replication.type": "DOCUMENT",
    # The drain alone refreshes, and only then forgets its outbox rows.
    "refresh_interval": "-1",
    # The default list order, environment by environment: small ones need not scan large ones.
    "sort.field": ["environmentId", "createdAt", "id"],
    "sort.order": ["asc", "desc", "desc"],
    "analysis": ANALYSIS,
}

MAPPING_DIGEST = hashlib.sha256(msgspec.json.encode([ANALYSIS, MAPPING, INDEX_SETTINGS], order="sorted")).hexdigest()
"""Tells whether a generation was built from this code's declaration."""
