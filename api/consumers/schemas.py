"""Types of requests about consumers: bodies, and the query parameters of the list and the search."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec

from api.auth import Requester
from api.consumers import words
from api.consumers.matching import Field
from api.consumers.query import Direction, SortField
from api.consumers.words import MAX_TEXT, MAX_WORDS
from api.drafts import BatchParameters
from api.error_codes import ErrorCode
from api.errors import Fault, invalid_cursor
from api.field_types import Email, ExternalId, Filter, FullName, Metadata, MetadataChange, Phone, filter_faults
from api.pages import MOMENT_FORMAT, Moment, PageParameters, TwoWayParameters, including
from api.scopes import FieldScope
from api.validation import Input
from infra import fields
from infra.phone_numbers import INVALID, searched_digits
from infra.seals import Seal


class ConsumerCreate(Input):
    """A consumer to create. Every field is optional."""

    read_only: ClassVar[frozenset[str]] = frozenset(
        {"id", "totalOrders", "totalOrderValue", "lastOrderAt", "createdAt", "updatedAt"}
    )

    example: ClassVar[dict[str, Any]] = {
        "email": "jose@example.com",
        "phone": "+442079460000",
        "fullName": "José García",
        "metadata": {"tier": "gold"},
        "externalId": "customer-17850",
    }

    email: Email | None = None
    phone: Phone | None = None
    full_name: FullName | None = None
    metadata: Metadata | None = None
    external_id: ExternalId | None = None


class ConsumerUpdate(Input):
    """Changes to a consumer: a field that is sent changes, an omitted field keeps its value, null clears a field.

    `metadata` is merged (RFC 7396): a null inside removes the key; `"metadata": null` clears all keys.
    """

    read_only: ClassVar[frozenset[str]] = ConsumerCreate.read_only
    example: ClassVar[dict[str, Any]] = {"fullName": "José García Núñez", "metadata": {"tier": None}}

    email: Email | msgspec.UnsetType | None = msgspec.UNSET
    phone: Phone | msgspec.UnsetType | None = msgspec.UNSET
    full_name: FullName | msgspec.UnsetType | None = msgspec.UNSET
    metadata: MetadataChange | msgspec.UnsetType | None = msgspec.UNSET
    """Merged (RFC 7396): a null inside removes the key, null clears all keys."""
    external_id: ExternalId | msgspec.UnsetType | None = msgspec.UNSET


class ConsumerUpdateItem(ConsumerUpdate, kw_only=True):
    """An item of a batch: the id of a consumer, and the changes."""

    example: ClassVar[dict[str, Any]] = {"id": "cons_01JBK3Q8X5W5V0B6T1R2M3N4P5", "phone": None}

    id: str
    """The id of the consumer to change."""


MatchBy = Literal["externalId", "email"]
_MATCH_BY = msgspec.Meta(description="The field that names the consumer, by default `externalId`.")


class UpsertParameters(Input):
    """Parameters of an upsert."""

    match_by: Annotated[MatchBy, _MATCH_BY] | None = None


class BatchUpsertParameters(BatchParameters):
    """Parameters of a batch of upserts."""

    match_by: Annotated[MatchBy, _MATCH_BY] | None = None


Text = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=MAX_TEXT,
        description="Words: at least 2 characters, or a single Han, Hangul or kana character. Every word must match: "
        "the start of a word of the name, the start of a part of the e-mail address, the start or end of the phone "
        "number, or the whole external id. Accents and case are ignored. Names are also found joined, split or "
        "elided (`oquill` and `quill` find O'Quill), by a given name written together with the family name, in "
        "hiragana or katakana, and in the usual spellings of umlauts (`mueller` finds Müller). Titles such as `Mr`, "
        "`mailto:`, `tel:` and invisible characters are ignored.",
        extra={"check": lambda value, _: _words(value)},
    ),
]


def _words(value: str) -> str:
    value = value.strip()
    if not words.is_long_enough(value):
        raise ValueError("Must be 2 characters or more, or a single Han, Hangul or kana character")
    if len(words.words(value)) > MAX_WORDS:
        raise ValueError(f"Must be at most {MAX_WORDS} words")
    return value


def _created(bound: str) -> msgspec.Meta:
    return msgspec.Meta(description=f"Only consumers created {bound} this time: {MOMENT_FORMAT}")


def _updated(bound: str) -> msgspec.Meta:
    text = f"Only consumers whose last change, the field `updatedAt`, was {bound} this time: {MOMENT_FORMAT}"
    return msgspec.Meta(description=text)


IncludeOfOne = Annotated[list[Literal["audiences", "orders"]], including("audiences", "orders")]
IncludeOfMany = Annotated[list[Literal["audiences"]], including("audiences")]


INCLUDED_AUDIENCES = FieldScope("include", "read:audiences", "audiences")
INCLUDED_ORDERS = FieldScope("include", "read:orders", "orders")


class GetParameters(Input):
    """Parameters of a single consumer. `include=orders` adds the 50 newest orders."""

    field_scopes: ClassVar[tuple[FieldScope, ...]] = (INCLUDED_AUDIENCES, INCLUDED_ORDERS)

    include: IncludeOfOne = msgspec.field(default_factory=list)


class LookupParameters(Input):
    """The value of a single consumer: either `externalId` or `email`."""

    external_id: (
        Annotated[
            str,
            msgspec.Meta(
                max_length=255,
                description="The whole external id.",
                extra={"check": lambda value, _: fields.identifier(value)},
            ),
        ]
        | None
    ) = None
    email: (
        Annotated[str, msgspec.Meta(max_length=254, description="The whole e-mail address, ignoring case.")] | None
    ) = None

    def faults(self, requester: Requester) -> Iterator[Fault]:
        del requester
        if (self.external_id is None) == (self.email is None):
            yield Fault("externalId", "Send either externalId or email", ErrorCode.NOT_COMBINABLE)


class ListParameters(TwoWayParameters):
    """Parameters of the list. A consumer must pass all filters."""

    elsewhere: ClassVar[dict[str, str]] = {
        name: f"use GET /api/v1/consumers/search?{name}=…" for name in ("q", "email", "phone", "externalId")
    }

    kind: ClassVar[str] = "list"
    not_in_list_id: ClassVar[frozenset[str]] = TwoWayParameters.not_in_list_id | {"include", "count"}
    field_scopes: ClassVar[tuple[FieldScope, ...]] = (INCLUDED_AUDIENCES, FieldScope("audience_id", "read:audiences"))

    search: Text | None = None
    sort_by: (
        Annotated[
            SortField,
            msgspec.Meta(
                description="The field to sort by, by default `createdAt`. Nulls come last, ties are sorted by id."
            ),
        ]
        | None
    ) = None
    sort_dir: Annotated[Direction, msgspec.Meta(description="Ascending or descending, by default `desc`.")] | None = (
        None
    )
    created_after: Annotated[Moment, _created("at or after")] | None = None
    created_before: Annotated[Moment, _created("before")] | None = None
    updated_after: Annotated[Moment, _updated("at or after")] | None = None
    updated_before: Annotated[Moment, _updated("before")] | None = None
    audience_id: (
        Annotated[str, msgspec.Meta(description="Only members of this audience, static or dynamic.")] | None
    ) = None
    filter: Filter | None = None
    include: IncludeOfMany = msgspec.field(default_factory=list)
    count: Annotated[
        bool, msgspec.Meta(description="Add the exact number of rows in the whole list: `totalCount`.")
    ] = False

    def order(self) -> tuple[SortField, Direction]:
        """Return the field and the direction to sort by."""
        return self.sort_by or "createdAt", self.sort_dir or "desc"

    def list_parameters(self) -> dict[str, Any]:
        sort_by, sort_dir = self.order()
        return super().list_parameters() | {"sort_by": sort_by, "sort_dir": sort_dir}

    def faults(self, requester: Requester) -> Iterator[Fault]:
        yield from super().faults(requester)
        yield from filter_faults(self.filter)


def _phone_digits(value: str, requester: Requester) -> str:
    if not searched_digits(value, requester.region):
        raise ValueError(INVALID)
    return value


class SearchParameters(PageParameters):
    """Parameters of a search. Required: `q`, `email`, `phone` or `externalId`. A consumer must match them all."""

    kind: ClassVar[str] = "search"
    not_in_list_id: ClassVar[frozenset[str]] = PageParameters.not_in_list_id | {"explain"}

    q: (
        Annotated[
            Text,
            msgspec.Meta(
                description="Words. Every word must match, as in the parameter `search` of the list. The first five "
                "words may also match the name with typos, if they have at most 24 letters. Better matches come first: "
                "a whole e-mail address, phone number or external id, the whole name as typed, the whole name, whole "
                "words, joined or split words, starts of words, typos."
            ),
        ]
        | None
    ) = None
    email: (
        Annotated[str, msgspec.Meta(max_length=254, description="The whole e-mail address, in any spelling.")] | None
    ) = None
    phone: (
        Annotated[
            str,
            msgspec.Meta(
                description="The whole phone number, national or international, with any punctuation.",
                extra={"check": _phone_digits},
            ),
        ]
        | None
    ) = None
    external_id: (
        Annotated[
            str,
            msgspec.Meta(
                max_length=255,
                description="The whole external id.",
                extra={"check": lambda value, _: fields.identifier(value)},
            ),
        ]
        | None
    ) = None
    filter: Filter | None = None
    explain: Annotated[bool, msgspec.Meta(description="Add the matches of each consumer: `matchedOn`.")] = False

    def continued(self, seal: Seal) -> Self:
        complete = super().continued(seal)
        if complete.q is None and not complete.exact():
            raise invalid_cursor()
        return complete

    def exact(self) -> dict[Field, str]:
        """Return the fields to match as a whole."""
        values: dict[Field, str | None] = {"email": self.email, "phone": self.phone, "externalId": self.external_id}
        # A faulty parameter is unset.
        return {field: fields.trimmed(value) for field, value in values.items() if isinstance(value, str)}

    def faults(self, requester: Requester) -> Iterator[Fault]:
        del requester
        # With a cursor, the parameters are the cursor's own.
        if all(value is None for value in (self.q, self.email, self.phone, self.external_id, self.after)):
            yield Fault("q", "Required unless email, phone or externalId is given", ErrorCode.REQUIRED)
        yield from filter_faults(self.filter)
