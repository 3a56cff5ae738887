"""Pagination, the same for every list: the parameters `first`, `after`, `last`, `before`, and `pageInfo` in the
response (contract.md §2).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Self

import msgspec

from api.auth import Requester
from api.cursors import CursorError, Cursors, Position, parameters_of
from api.error_codes import ErrorCode
from api.errors import Fault, invalid, invalid_cursor
from api.validation import Input
from infra import fields
from infra.seals import Seal

DEFAULT_SIZE = 20

First = Annotated[
    int,
    msgspec.Meta(ge=1, le=100, description="Number of rows, from the start of the list or from `after`. Default 20."),
]
Last = Annotated[
    int, msgspec.Meta(ge=1, le=100, description="Number of rows, to the end of the list or to `before`. Default 20.")
]
After = Annotated[str, msgspec.Meta(description="A cursor: return the rows after it. Combine with `first`.")]
Before = Annotated[str, msgspec.Meta(description="A cursor: return the rows before it. Combine with `last`.")]
MOMENT_FORMAT = "RFC 3339 with any offset. A date alone means midnight UTC."
Moment = Annotated[
    datetime,
    msgspec.Meta(
        description=MOMENT_FORMAT,
        extra={"parse": lambda value, _: fields.timestamp(require_text(value)), "code": ErrorCode.INVALID_TIME},
        extra_json_schema={"format": "date-time"},
    ),
]


class PageInfo(msgspec.Struct, rename="camel"):
    """The cursors of the first and the last row of the page. Both are null on an empty page."""

    start_cursor: str | None
    """The cursor of the first row: send it as `before` for the previous page."""
    end_cursor: str | None
    """The cursor of the last row: send it as `after` for the next page."""
    has_next_page: bool
    """Exact on a walk forward; backward it says whether a cursor led here."""
    has_previous_page: bool
    """Exact on a walk backward; forward it says whether a cursor led here."""

    example: ClassVar[dict[str, Any]] = {
        "startCursor": "ASwm…",
        "endCursor": "ASwm…",
        "hasNextPage": False,
        "hasPreviousPage": False,
    }


class Paging(msgspec.Struct):
    """The requested page of a list: `size` rows after a cursor or, if `backward`, before a cursor."""

    size: int
    after: str | None = None
    before: str | None = None
    backward: bool = False

    def position(self, cursors: Cursors, length: int) -> Position | None:
        """Return the cursor's position; None without a cursor.

        Args:
            cursors: of the list; a cursor of another list is refused.
            length: how many sort values a position of this list has.

        Raises:
            Problem: 400 for a damaged or expired cursor, or a cursor of another list.
        """
        name, cursor = ("before", self.before) if self.before is not None else ("after", self.after)
        if cursor is None:
            return None
        try:
            position = cursors.decode(cursor)
        except CursorError as error:
            raise invalid(Fault(name, str(error), ErrorCode.INVALID_CURSOR)) from None
        if len(position.values) != length:
            raise invalid_cursor(name)
        return position

    def page_info(self, cursors: Cursors, positions: Sequence[Position], *, has_more: bool) -> PageInfo:
        """Describe the page.

        Args:
            cursors: of the list.
            positions: of the page's first and last row, and any between, in list order.
            has_more: whether the list continues past the page in the direction of the walk.
        """
        both = (positions[0], positions[-1]) if positions else (None, None)
        ends = [end and cursors.encode(end.values, spacing=end.spacing) for end in both]
        return PageInfo(
            start_cursor=ends[0],
            end_cursor=ends[1],
            has_next_page=self.before is not None if self.backward else has_more,
            has_previous_page=has_more if self.backward else self.after is not None,
        )


def render(rows: Sequence[bytes], info: PageInfo, total: int | None = None) -> bytes:
    """Return the page as JSON; `rows` are JSON already."""
    total_count = b"" if total is None else b',"totalCount":%d' % total
    return b'{"data":[%b],"pageInfo":%b%b}' % (b",".join(rows), msgspec.json.encode(info), total_count)


class PageParameters(Input):
    """Parameters of a forward-only list."""

    kind: ClassVar[str]
    """The kind of list, which a cursor names."""
    not_in_list_id: ClassVar[frozenset[str]] = frozenset({"first", "after", "last", "before"})
    """Parameters without effect on the rows of the list and their order."""

    first: First | None = None
    after: After | None = None

    def paging(self) -> Paging:
        return Paging(self.first or DEFAULT_SIZE, self.after)

    @property
    def cursor(self) -> tuple[str, str | None]:
        """The parameter with the cursor, and the cursor."""
        return "after", self.after

    def continued(self, seal: Seal) -> Self:
        """Return the parameters of the list that the cursor belongs to: those left out are the cursor's own.

        Raises:
            Problem: 400 if a parameter has another value than in the cursor.
        """
        name, cursor = self.cursor
        stored = cursor and parameters_of(seal, self.kind, cursor)
        if not stored:
            return self
        fields = _fields(type(self))
        faults = [
            Fault(name, _other_list(info.encode_name, stored.get(field), value), ErrorCode.INVALID_CURSOR)
            for field, info in fields.items()
            if (value := getattr(self, field)) is not None and msgspec.to_builtins(value) != stored.get(field)
        ]
        if faults:
            raise invalid(*faults)
        own = {field: msgspec.convert(stored[field], info.type) for field, info in fields.items() if field in stored}
        return msgspec.structs.replace(self, **own)

    def list_parameters(self) -> dict[str, Any]:
        """Return the parameters that define the list, and so are part of the list's id."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if name not in self.not_in_list_id}


@cache
def _fields(parameters: type[PageParameters]) -> dict[str, msgspec.structs.FieldInfo]:
    """Return the parameters that define the list, by attribute."""
    return {
        info.name: info for info in msgspec.structs.fields(parameters) if info.name not in parameters.not_in_list_id
    }


def _other_list(parameter: str, stored: Any, sent: Any) -> str:
    own = f"without {parameter}" if stored is None else f"with {parameter}={stored}"
    return f"Invalid cursor: it belongs to a list {own}, not {sent}. Leave {parameter} out, or begin without a cursor"


class TwoWayParameters(PageParameters):
    """Parameters of a list that can be walked backward too. The rows come in list order in both directions."""

    last: Last | None = None
    before: Before | None = None

    def paging(self) -> Paging:
        if self.last is not None or self.before is not None:
            return Paging(self.last or DEFAULT_SIZE, before=self.before, backward=True)
        return super().paging()

    @property
    def cursor(self) -> tuple[str, str | None]:
        return super().cursor if self.before is None else ("before", self.before)

    def faults(self, requester: Requester) -> Iterator[Fault]:
        del requester
        if self.first is not None and self.last is not None:
            yield Fault("last", "Cannot be combined with first", ErrorCode.NOT_COMBINABLE)
        if self.after is not None and self.before is not None:
            yield Fault("before", "Cannot be combined with after", ErrorCode.NOT_COMBINABLE)
        if self.first is not None and self.before is not None:
            yield Fault("before", "Use before with last", ErrorCode.NOT_COMBINABLE)
        if self.last is not None and self.after is not None:
            yield Fault("after", "Use after with first", ErrorCode.NOT_COMBINABLE)


def require_text(value: Any) -> str:
    """Return a string unchanged.

    Raises:
        ValueError: the value is not a string.
    """
    if not isinstance(value, str):
        raise ValueError("Expected a string")
    return value


def _include(value: Any, includable: frozenset[str]) -> list[str]:
    names = require_text(value).split(",")
    if unknown := set(names) - includable:
        advice = ". Orders are in GET /api/v1/orders and GET /api/v1/consumers/:id" if "orders" in unknown else ""
        raise ValueError(f"Unknown value {', '.join(sorted(unknown))}: use {' or '.join(sorted(includable))}{advice}")
    return names


def including(
    *includable: str, description: str = "Related objects to add to each consumer, separated by commas."
) -> msgspec.Meta:
    """Return the rule of a parameter `include`."""
    return msgspec.Meta(
        description=description,
        extra={"code": ErrorCode.INVALID_CHOICE, "parse": lambda value, _: _include(value, frozenset(includable))},
    )
