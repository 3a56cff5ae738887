"""What a request may say of a consumer, and the pages a list answers with."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from api.auth import Caller
from api.consumers.matching import MAX_TEXT, MAX_WORDS, Field, phone_forms, words
from api.consumers.query import Direction, SortField
from api.errors import Fault
from api.field_types import Email, ExternalId, Filter, FullName, Metadata, Phone, filter_faults
from api.pages import Moment, PageParameters, TwoWayParameters, require_text
from api.validation import Input


class NewConsumer(Input):
    """A consumer to create. Every field is optional."""

    read_only: ClassVar[frozenset[str]] = frozenset(
        {"id", "totalOrders", "totalOrderValue", "lastOrderAt", "createdAt", "updatedAt"}
    )

    email: Email | None = None
    phone: Phone | None = None
    full_name: FullName | None = None
    metadata: Metadata | None = None
    external_id: ExternalId | None = None


class ConsumerChange(Input):
    """What to change of a consumer: given fields change, omitted ones stay, null clears.

    `metadata` is merged (RFC 7396): a null inside removes that key; null itself clears all.
    """

    read_only: ClassVar[frozenset[str]] = NewConsumer.read_only

    email: Email | msgspec.UnsetType | None = msgspec.UNSET
    phone: Phone | msgspec.UnsetType | None = msgspec.UNSET
    full_name: FullName | msgspec.UnsetType | None = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    external_id: ExternalId | msgspec.UnsetType | None = msgspec.UNSET


class ConsumerChangeItem(ConsumerChange, kw_only=True):
    """A change in a batch: of the consumer with this id."""

    id: str


Text = Annotated[
    str,
    msgspec.Meta(
        min_length=2,
        max_length=MAX_TEXT,
        description="Words; each must match the start of a word of the name, of a part of the e-mail address, the "
        "start or end of the phone number, or the whole external id.",
        extra={"check": lambda value, _: _words(value)},
    ),
]


def _words(value: str) -> str:
    value = value.strip()
    if len(value) < 2:  # noqa: PLR2004 (the contract's)
        raise ValueError("Must be 2 characters or more")
    if len(words(value)) > MAX_WORDS:
        raise ValueError(f"Must be at most {MAX_WORDS} words")
    return value


def _include(value: Any, includable: frozenset[str]) -> list[str]:
    wanted = require_text(value).split(",")
    if unknown := set(wanted) - includable:
        raise ValueError(f"Unknown: {', '.join(sorted(unknown))}; there are {', '.join(sorted(includable))}")
    return wanted


def _including(*includable: str) -> msgspec.Meta:
    return msgspec.Meta(
        description="What else to answer of a consumer, separated by commas.",
        extra={"parse": lambda value, _: _include(value, frozenset(includable))},
    )


IncludeOfOne = Annotated[list[Literal["audiences", "orders"]], _including("audiences", "orders")]
IncludeOfMany = Annotated[list[Literal["audiences"]], _including("audiences")]


class GetParameters(Input):
    """`include`: any comma list of `audiences` and `orders` (the 50 newest)."""

    include: IncludeOfOne = msgspec.field(default_factory=list)


class ListParameters(TwoWayParameters):
    not_in_list_id: ClassVar[frozenset[str]] = TwoWayParameters.not_in_list_id | {"include", "count"}

    search: Text | None = None
    sort_by: SortField = "createdAt"
    sort_dir: Direction = "desc"
    created_after: Moment | None = None
    created_before: Moment | None = None
    audience_id: str | None = None
    filter: Filter | None = None
    include: IncludeOfMany = msgspec.field(default_factory=list)
    count: Annotated[bool, msgspec.Meta(description="Whether to count all rows, exactly: `totalCount`.")] = False

    def faults(self, caller: Caller) -> Iterator[Fault]:
        yield from super().faults(caller)
        yield from filter_faults(self.filter)


def _phone_digits(value: str, caller: Caller) -> str:
    if not phone_forms(value, caller.region):
        raise ValueError("Invalid phone number")
    return value


class SearchParameters(PageParameters):
    """All that is given must hold, and something must be."""

    not_in_list_id: ClassVar[frozenset[str]] = PageParameters.not_in_list_id | {"explain"}

    q: Text | None = None
    email: Annotated[str, msgspec.Meta(max_length=254, description="The whole address, ignoring case.")] | None = None
    phone: (
        Annotated[
            str,
            msgspec.Meta(
                description="The whole number, national or international, in any punctuation.",
                extra={"check": _phone_digits},
            ),
        ]
        | None
    ) = None
    external_id: Annotated[str, msgspec.Meta(max_length=255, description="The whole external id.")] | None = None
    filter: Filter | None = None
    explain: Annotated[bool, msgspec.Meta(description="Whether to tell what matched: `matchedOn`.")] = False

    def exact(self) -> dict[Field, str]:
        """The fields that are asked for as a whole."""
        given: dict[Field, str | None] = {"email": self.email, "phone": self.phone, "externalId": self.external_id}
        return {field: value for field, value in given.items() if value is not None}

    def faults(self, caller: Caller) -> Iterator[Fault]:
        del caller
        if self.q is None and not self.exact():
            yield Fault("q", "Needed, unless email, phone or externalId is given")
        yield from filter_faults(self.filter)
