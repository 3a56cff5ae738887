"""Pages of a list: which one is asked for, and how it is answered. The same for every list (contract.md §2)."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar

import msgspec

from api import cursors
from api.auth import Caller
from api.errors import Fault, invalid
from api.validation import Body
from infra import fields

DEFAULT_SIZE = 20

Size = Annotated[int, msgspec.Meta(ge=1, le=100)]
Moment = Annotated[
    datetime,
    msgspec.Meta(
        description="RFC 3339, with any offset; a date alone is midnight UTC.",
        extra={"parse": lambda value, _: fields.timestamp(text(value))},
        extra_json_schema={"anyOf": [{"format": "date-time"}, {"format": "date"}]},
    ),
]


class PageInfo(msgspec.Struct, rename="camel"):
    """Cursors are those of the first and the last row; null on an empty page."""

    start_cursor: str | None
    end_cursor: str | None
    has_next_page: bool
    has_previous_page: bool


class Window(msgspec.Struct):
    """Which page of a list: so many rows after a cursor, or before one."""

    size: int
    after: str | None = None
    before: str | None = None
    backward: bool = False

    def place(self, question: bytes, values: int) -> list[Any] | None:
        """The sort values of the row the page begins after (or ends before); so many of them.

        Raises:
            Problem: 400 for a cursor that is damaged, expired or of another question.
        """
        name, cursor = ("before", self.before) if self.before is not None else ("after", self.after)
        if cursor is None:
            return None
        try:
            place = cursors.decode(question, cursor)
        except cursors.CursorError as error:
            raise invalid(Fault(name, str(error))) from None
        if len(place) != values:
            raise invalid(Fault(name, "Invalid cursor"))
        return place

    def info(self, question: bytes, places: Sequence[Sequence[Any]], *, more: bool) -> PageInfo:
        """What the page says of itself; `places` are the sort values of its rows, in list order."""
        ends = [cursors.encode(question, place) for place in (places[0], places[-1])] if places else [None, None]
        return PageInfo(
            start_cursor=ends[0],
            end_cursor=ends[1],
            has_next_page=self.before is not None if self.backward else more,
            has_previous_page=more if self.backward else self.after is not None,
        )


def render(rows: Sequence[bytes], info: PageInfo, total: int | None = None) -> bytes:
    """The page as JSON, of rows that are JSON already."""
    counted = b"" if total is None else b',"totalCount":%d' % total
    return b'{"data":[%b],"pageInfo":%b%b}' % (b",".join(rows), msgspec.json.encode(info), counted)


class PageParameters(Body):
    """`first` rows, after a cursor."""

    showing: ClassVar[frozenset[str]] = frozenset({"first", "after", "last", "before"})
    """What changes neither which rows there are nor their order."""

    first: Size | None = None
    after: str | None = None

    def window(self) -> Window:
        return Window(self.first or DEFAULT_SIZE, self.after)

    def question(self) -> dict[str, Any]:
        """What was asked, apart from which page of it: a cursor is good for one question."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if name not in self.showing}


class TwoWayParameters(PageParameters):
    """`first` rows after a cursor, or the `last` before one; rows come in list order either way."""

    last: Size | None = None
    before: str | None = None

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


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("Expected a string")
    return value
