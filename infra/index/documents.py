"""The documents of the search index: names, mapping, analysis, and how a row becomes one.

The one place that knows them. Incremental indexing and full rebuilds use the same functions.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
import phonenumbers

from infra.database.rows import select_list
from infra.index.terms import terms
from infra.phones import plain
from infra.wire import JSONObject, Time, number, time

MONEY_UNIT = 10_000
"""Money is a `long` of ten-thousandths: paging by a `scaled_float` loses rows."""

EXTENSION = re.compile("[x#]")

UNSPACED_FROM = "\u0e00"
"""No script below has words without spaces between them (`infra.index.analysis`)."""


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


COLUMNS = select_list(ConsumerRow._fields, "c", metadata="c.metadata::text")
"""Columns of `consumers AS c` for `ConsumerRow._make`."""

AUDIENCE_IDS = """
    ARRAY(SELECT m.audience_id FROM audience_members m WHERE m.consumer_id = c.id ORDER BY m.audience_id)"""


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

    example: ClassVar[dict[str, Any]] = {
        "id": "cons_01JBK3Q8X5W5V0B6T1R2M3N4P5",
        "email": "jose@example.com",
        "phone": "+442079460000",
        "fullName": "José García",
        "metadata": {"tier": "gold"},
        "externalId": "customer-17850",
        "totalOrders": 2,
        "totalOrderValue": 1234.5,
        "lastOrderAt": "2024-11-01T10:00:00.000Z",
        "createdAt": "2024-11-01T10:00:00.000Z",
        "updatedAt": "2024-11-01T10:00:00.000Z",
    }


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
