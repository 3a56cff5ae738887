"""What a request may say of a consumer, and the pages a list answers with."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, ClassVar

import msgspec

from api.auth import Caller
from api.consumers.query import MAX_TEXT, MAX_WORDS, Direction, SortField, words
from api.consumers.reads import Window
from api.errors import Fault
from api.validation import Body
from infra import fields

DEFAULT_SIZE = 20

Email = Annotated[
    str,
    msgspec.Meta(
        max_length=254,
        description="A valid address. Kept as sent, with its domain in lower case; unique ignoring case.",
        examples=["jose@example.com"],
        extra={"check": lambda value, _: fields.email(value)},
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
    ),
]
FullName = Annotated[
    str,
    msgspec.Meta(
        description="1 to 255 characters after trimming, in Unicode's NFC.",
        examples=["José García"],
        extra={"check": lambda value, _: fields.full_name(value)},
    ),
]
Metadata = Annotated[
    dict[str, Any],
    msgspec.Meta(
        description="At most 16 KiB, 50 keys of 64 characters, 5 levels deep.",
        extra={"check": lambda value, _: fields.metadata(value)},
    ),
]
ExternalId = Annotated[
    str,
    msgspec.Meta(
        description="1 to 255 characters; unique.",
        examples=["customer-17850"],
        extra={"check": lambda value, _: fields.external_id(value)},
    ),
]


class NewConsumer(Body):
    """A consumer to create. Every field is optional."""

    read_only: ClassVar[frozenset[str]] = frozenset(
        {"id", "totalOrders", "totalOrderValue", "lastOrderAt", "createdAt", "updatedAt"}
    )

    email: Email | None = None
    phone: Phone | None = None
    full_name: FullName | None = None
    metadata: Metadata | None = None
    external_id: ExternalId | None = None


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
Moment = Annotated[
    datetime,
    msgspec.Meta(
        description="RFC 3339, with any offset; a date alone is midnight UTC.",
        extra={"parse": lambda value, _: fields.timestamp(text(value))},
    ),
]
Size = Annotated[int, msgspec.Meta(ge=1, le=100)]


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("Expected a string")
    return value


def _words(value: str) -> str:
    value = value.strip()
    if len(value) < 2:  # noqa: PLR2004 (the contract's)
        raise ValueError("Must be 2 characters or more")
    if len(words(value)) > MAX_WORDS:
        raise ValueError(f"Must be at most {MAX_WORDS} words")
    return value


class PageParameters(Body):
    """Which page: `first` rows after a cursor."""

    paging: ClassVar[frozenset[str]] = frozenset({"first", "after", "last", "before"})

    first: Size | None = None
    after: str | None = None

    def window(self) -> Window:
        return Window(self.first or DEFAULT_SIZE, self.after)

    def question(self) -> dict[str, Any]:
        """What was asked, apart from which page of it: a cursor is good for one question."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if name not in self.paging}


class ListParameters(PageParameters):
    last: Size | None = None
    before: str | None = None
    search: Text | None = None
    sort_by: SortField = "createdAt"
    sort_dir: Direction = "desc"
    created_after: Moment | None = None
    created_before: Moment | None = None

    def window(self) -> Window:
        if self.last is not None or self.before is not None:
            return Window(self.last or DEFAULT_SIZE, before=self.before, backward=True)
        return super().window()

    def faults(self, caller: Caller) -> Iterator[Fault]:
        del caller
        if self.first is not None and self.last is not None:
            yield Fault("last", "Cannot be combined with first")
        if self.after is not None and self.before is not None:
            yield Fault("before", "Cannot be combined with after")
        if self.first is not None and self.before is not None:
            yield Fault("before", "Goes with last, not with first")
        if self.last is not None and self.after is not None:
            yield Fault("after", "Goes with first, not with last")


class SearchParameters(PageParameters, kw_only=True):
    q: Text
