"""Parameters and answers of the feeds of changes (contract.md §2 "Changes")."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from api.auth import Requester
from api.error_codes import ErrorCode
from api.errors import Fault
from api.orders.schemas import Order
from api.pages import require_text
from api.validation import Input
from infra import fields
from infra.index.documents import Consumer

DEFAULT_SIZE, MAX_SIZE = 100, 500
NOW = "now"


def _begin(value: Any, _: Requester) -> datetime | None:
    return None if value == NOW else fields.timestamp(require_text(value))


class ChangesParameters(Input):
    """Parameters of a feed of changes."""

    first: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            le=MAX_SIZE,
            description=f"Maximum of changes in the page. Default {DEFAULT_SIZE}.",
            extra_json_schema={"format": "int32"},
        ),
    ] = DEFAULT_SIZE
    after: Annotated[str, msgspec.Meta(description="The `endCursor` of the page before.")] | None = None
    begin: (
        Annotated[
            datetime,
            msgspec.Meta(
                description="Where to begin without a cursor: `now` (default), or a time (RFC 3339) within the days "
                "that changes are kept.",
                extra={"parse": _begin},
                extra_json_schema={"type": "string"},
            ),
        ]
        | None
    ) = msgspec.field(default=None, name="from")

    def faults(self, requester: Requester) -> list[Fault]:
        del requester
        return (
            [Fault("from", "Cannot be combined with after", ErrorCode.NOT_COMBINABLE)]
            if self.begin is not None and self.after
            else []
        )


ChangeType = Literal["created", "updated", "deleted"]


class ConsumerChange(msgspec.Struct):
    """A change of a consumer. Several changes of a consumer may come as one."""

    type: ChangeType
    """`deleted` if the consumer does not exist any more; `created` if the consumer is new to this feed."""
    id: str
    """The id of the consumer."""
    at: str
    """Time of the change (RFC 3339)."""
    consumer: Consumer | None
    """The consumer as it is now, not as it was at the change; null if it was deleted."""

    example: ClassVar[dict[str, Any]] = {
        "type": "updated",
        "id": Consumer.example["id"],
        "at": Consumer.example["updatedAt"],
        "consumer": Consumer.example,
    }


class OrderChange(msgspec.Struct):
    """A change of an order. Several changes of an order may come as one."""

    type: ChangeType
    """`deleted` if the order does not exist any more; `created` if the order is new to this feed."""
    id: str
    """The id of the order."""
    at: str
    """Time of the change (RFC 3339)."""
    order: Order | None
    """The order as it is now, not as it was at the change; null if it was deleted."""

    example: ClassVar[dict[str, Any]] = {
        "type": "updated",
        "id": Order.example["id"],
        "at": Order.example["updatedAt"],
        "order": Order.example,
    }


class ChangesPageInfo(msgspec.Struct, rename="camel"):
    """Where the next page of a feed begins."""

    end_cursor: str
    """Send it as `after`, also after an empty page. Never null; valid for the days that changes are kept."""
    has_next_page: bool
    """Whether further changes can be read at once."""

    example: ClassVar[dict[str, Any]] = {"endCursor": "ASwm…", "hasNextPage": False}


class ConsumerChanges(msgspec.Struct, rename="camel"):
    """A page of the feed of consumers, oldest change first."""

    data: list[ConsumerChange]
    """The changes, oldest first."""
    page_info: ChangesPageInfo

    example: ClassVar[dict[str, Any]] = {"data": [ConsumerChange.example], "pageInfo": ChangesPageInfo.example}


class OrderChanges(msgspec.Struct, rename="camel"):
    """A page of the feed of orders, oldest change first."""

    data: list[OrderChange]
    """The changes, oldest first."""
    page_info: ChangesPageInfo

    example: ClassVar[dict[str, Any]] = {"data": [OrderChange.example], "pageInfo": ChangesPageInfo.example}
