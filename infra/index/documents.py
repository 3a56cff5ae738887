"""Conversion of a consumer's row: to the JSON of the API, and to the document in the search index.

A write's response and the document's `row` are the same bytes. The drain and a rebuild use the same functions, so a
document never depends on the way of indexing. `mapping.py` declares the index.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
import phonenumbers

from infra import emails, phone_numbers
from infra.database.rows import select_list
from infra.fields import CONSUMER_FIELDS
from infra.ids import id_time
from infra.index import names, search_texts
from infra.index.attributes import email_domain
from infra.index.terms import terms
from infra.phone_countries import country_of
from infra.phones import parse_plain
from infra.wire import JSONObject, Time, time, without_trailing_zeros

MERGED = "\ufffe"
"""Collation compares the text before this character, then the text after it."""
MONEY_UNIT = 10_000
"""Money is indexed as a `long` of ten-thousandths, because paging by a `scaled_float` loses rows."""

UNSPACED_FROM = "\u0e00"
"""All scripts without spaces between words begin at this character or above (`analysis.py`)."""


class ConsumerRow(NamedTuple):
    """A row of `consumers`. `metadata` is JSON text; `total_order_value` is in the environment's currency."""

    id: str
    environment_id: int
    version: int
    email: str | None
    email_as_sent: str | None
    phone: str | None
    full_name: str | None
    metadata: str | None
    external_id: str | None
    total_orders: int
    total_order_value: Decimal
    last_order_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def address(self) -> str | None:
        """The e-mail address as clients see it; `email` may be its key (`infra/emails.py`)."""
        return self.email_as_sent or self.email


def without_data(row: ConsumerRow) -> ConsumerRow:
    """Return the row without the data of the consumer. The id and the times of the row stay."""
    return row._replace(
        email=None,
        email_as_sent=None,
        phone=None,
        full_name=None,
        metadata=None,
        external_id=None,
        total_orders=0,
        total_order_value=Decimal(0),
        last_order_at=None,
    )


COLUMNS = select_list(ConsumerRow._fields, "c", metadata="c.metadata::text")
"""Columns of `consumers AS c` for `ConsumerRow._make`."""

AUDIENCE_IDS = """
    ARRAY(SELECT m.audience_id FROM audience_members m WHERE m.consumer_id = c.id ORDER BY m.audience_id)"""


class Consumer(msgspec.Struct, rename="camel"):
    """A consumer."""

    id: Annotated[str, msgspec.Meta(pattern="^cons_[0-9A-HJKMNP-TV-Z]{26}$")]
    """The id, in order of creation."""
    email: str | None
    """The e-mail address, unique in the environment."""
    phone: str | None
    """The phone number: in E.164 where the number is a possible international one, otherwise as sent."""
    full_name: str | None
    """The whole name."""
    metadata: JSONObject | None
    """A JSON object of your own."""
    external_id: str | None
    """Your own id, unique in the environment."""
    total_orders: Annotated[int, msgspec.Meta(description="Number of orders with status `CREATED` or `COMPLETED`.")]
    total_order_value: Annotated[
        Decimal | int,
        msgspec.Meta(description="Exact value of these orders after refunds, in the environment's currency."),
    ]
    last_order_at: Annotated[Time, msgspec.Meta(description="`placedAt` of the newest of these orders.")] | None
    created_at: Time
    """Time of creation."""
    updated_at: Annotated[Time, msgspec.Meta(description="Also changes with the totals and the stored memberships.")]

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
    """The document of a consumer. Nulls are written out, because the mapping's `null_value`, which sorts them last,
    applies to explicit nulls only.
    """

    row: msgspec.Raw
    id: str
    id_time: int
    environment_id: str
    version: int
    deleted: bool
    email: str | None
    email_parts: str | None
    phone: str | None
    phone_digits: Sequence[str]
    phone_reversed: Sequence[str]
    full_name: str | None
    name_order: str | None
    words: str | None
    name_runs: str | None
    forms: Sequence[str]
    form_starts: Sequence[str]
    external_id: str | None
    total_orders: int
    total_order_value: int
    last_order_at: str | None
    created_at: str
    updated_at: str
    audience_ids: Sequence[str]
    email_domain: str | None
    phone_country: str | None
    attributes: Sequence[str]
    texts: str
    numbers: Sequence[str]
    all_contents: str | None


class Tombstone(msgspec.Struct, rename="camel"):
    """The document of a deleted consumer.

    A delete in the index is not enough: OpenSearch forgets the version of a deleted document when a node restarts, and
    then a late, older write would bring the consumer back.
    """

    id: str
    environment_id: str
    version: int
    deleted_at: str
    deleted: bool = True


_encode = msgspec.json.Encoder(decimal_format="number").encode
_field_values = attrgetter(*(field.column for field in CONSUMER_FIELDS))
_FIELD_NAMES = tuple(field.name for field in CONSUMER_FIELDS)


def consumer_json(row: ConsumerRow) -> bytes:
    """Return the JSON of a consumer, as in responses of the API and in `row` of the document."""
    return _encode(_consumer(row))


def document(row: ConsumerRow, audience_ids: Sequence[str]) -> bytes:
    """Return the document of a consumer, as JSON."""
    consumer = _consumer(row)
    compared = terms(dict(zip(_FIELD_NAMES, _field_values(consumer), strict=True)), row.metadata)
    digits = phone_digits(row.phone) if row.phone else ()
    email_key = emails.fold(row.address) if row.address else None
    forms = names.forms(row.full_name, email_key)
    whole_name = search_texts.whole_name_form(row.full_name) if row.full_name else None
    return _encode(
        Document(
            row=msgspec.Raw(_encode(consumer)),
            id=row.id,
            id_time=id_time(row.id),
            environment_id=str(row.environment_id),
            version=row.version,
            deleted=False,
            email=email_key,
            email_parts=search_texts.address_parts(email_key) if email_key else None,
            phone=row.phone,
            phone_digits=digits,
            phone_reversed=reversed_digits(digits),
            full_name=row.full_name,
            name_order=None if row.full_name is None else name_order(row.environment_id, row.full_name),
            words=search_texts.words_of_name(row.full_name) if row.full_name else None,
            name_runs=_name_runs(row.full_name),
            forms=forms.whole if whole_name is None else [*forms.whole, whole_name],
            form_starts=forms.starts,
            external_id=row.external_id,
            total_orders=row.total_orders,
            total_order_value=int(row.total_order_value * MONEY_UNIT),
            last_order_at=consumer.last_order_at,
            created_at=consumer.created_at,
            updated_at=consumer.updated_at,
            audience_ids=audience_ids,
            email_domain=email_domain(email_key),
            phone_country=country_of(row.phone) if row.phone else None,
            attributes=compared.attributes,
            texts=compared.all_texts,
            numbers=compared.numbers,
            all_contents=compared.all_contents,
        )
    )


def tombstone(consumer_id: str, environment_id: int, version: int, deleted_at: datetime) -> bytes:
    """Return the document of a deleted consumer, as JSON."""
    return _encode(Tombstone(consumer_id, str(environment_id), version, time(deleted_at)))


def phone_digits(phone: str) -> list[str]:
    """Return the digits of a stored number in all forms used in searches.

    The forms are international, national, and national without prefix; for a number with an extension, with the
    extension and without.

    >>> phone_digits("+447400123456")
    ['447400123456', '07400123456', '7400123456']
    """
    if number := parse_plain(phone):
        return list(dict.fromkeys(number.digits()))
    written = phone_numbers.read(phone)
    if not written:
        return list(filter(None, ["".join(filter(str.isdigit, phone))]))
    forms = [
        form + extension
        for extension in dict.fromkeys([written.extension, ""])
        for form in (written.number, *_other_forms(written.number))
    ]
    digits = ["".join(filter(str.isdigit, form)) for form in forms]
    return [form for form in dict.fromkeys(digits) if form]


def reversed_digits(digits: Sequence[str]) -> list[str]:
    """Return the numbers reversed, for suffix search.

    A form of a single digit plus a suffix of the first form is left out. All shorter suffixes are suffixes of the
    first form as well, and the whole form is matched by `phoneDigits.starts`.

    >>> reversed_digits(["447400123456", "07400123456", "7400123456"])
    ['654321004744']
    """
    first = digits[0] if digits else ""
    return [form[::-1] for form in digits if form is first or not first.endswith(form[1:])]


def name_order(environment_id: int, name: str) -> str:
    """Return the text of `nameOrder`: its order is that of the environments, and within each that of the names."""
    return f"{environment_id}{MERGED}{name}"


def _name_runs(name: str | None) -> str | None:
    """Return a name that may contain words without spaces between; None for other names."""
    return name if name and not name.isascii() and max(name) >= UNSPACED_FROM else None


def _other_forms(phone: str) -> list[str]:
    """Return an international number as written inside the country, with and without the national prefix.

    Return the international number for a number dialled with 00, which is stored so if the organization has no region.
    """
    is_dialled = phone.startswith("00")
    if not phone.startswith("+") and not is_dialled:
        return []
    try:
        parsed = phonenumbers.parse(f"+{phone[2:]}" if is_dialled else phone)
    except phonenumbers.NumberParseException:
        return []
    if is_dialled:
        return [phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)]
    national = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
    return [national, phonenumbers.national_significant_number(parsed)]


def _consumer(row: ConsumerRow) -> Consumer:
    return Consumer(
        id=row.id,
        email=row.address,
        phone=row.phone,
        full_name=row.full_name,
        metadata=None if row.metadata is None else msgspec.Raw(row.metadata.encode()),
        external_id=row.external_id,
        total_orders=row.total_orders,
        total_order_value=without_trailing_zeros(row.total_order_value),
        last_order_at=time(row.last_order_at) if row.last_order_at else None,
        created_at=time(row.created_at),
        updated_at=time(row.updated_at),
    )
