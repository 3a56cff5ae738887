"""The answer to a batch whose items are stored or refused each for itself: the outcome of each item."""

from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from api.answers import Answer
from api.errors import ErrorDetail, Fault, detail

Status = Literal["created", "updated", "unchanged", "failed"]
STATUSES: tuple[Status, ...] = ("created", "updated", "unchanged", "failed")


class Outcome(NamedTuple):
    """The outcome of an item."""

    status: Status
    id: str | None = None
    body: bytes = b""
    """The object as JSON; empty if the item failed."""
    faults: Sequence[Fault] = ()
    consumer_id: str | None = None
    """The consumer with data in `body`."""
    version: int = 0
    """Of a consumer, for the entity tag."""


class ItemResult(msgspec.Struct, rename="camel"):
    """The outcome of an item of a batch, without the object."""

    index: Annotated[int, msgspec.Meta(description="The position of the item in the request, from 0.")]
    status: Annotated[Status, msgspec.Meta(description="`unchanged`: the object has all values of the item already.")]
    id: Annotated[str, msgspec.Meta(description="The id of the object; null if the item failed.")] | None
    errors: Annotated[list[ErrorDetail], msgspec.Meta(description="The faults of the item, if it failed.")]


class BatchCounts(msgspec.Struct, rename="camel"):
    """Numbers of outcomes."""

    created: Annotated[int, msgspec.Meta(description="Objects created.")]
    updated: Annotated[int, msgspec.Meta(description="Objects changed.")]
    unchanged: Annotated[int, msgspec.Meta(description="Items without a change.")]
    failed: Annotated[int, msgspec.Meta(description="Items with faults; nothing was stored of them.")]


def answer(
    outcomes: Sequence[Outcome], name: str, *, status: HTTPStatus, minimal: bool, consumer_ids: Sequence[str]
) -> Answer:
    """Answer with the outcomes of a batch.

    Args:
        outcomes: in the order of the request.
        name: of the member with the object.
        status: of the response.
        minimal: leave the objects out.
        consumer_ids: consumers with data in the objects.
    """
    results: list[dict[str, Any]] = []
    for index, outcome in enumerate(outcomes):
        path = f"[{index}]"
        errors = [detail(fault, fault.field.removeprefix(path).removeprefix(".")) for fault in outcome.faults]
        result = {"index": index, "status": outcome.status, "id": outcome.id, "errors": errors}
        results.append(result if minimal or not outcome.body else result | {name: msgspec.Raw(outcome.body)})
    counts = Counter(outcome.status for outcome in outcomes)
    body = msgspec.json.encode({"results": results, **{each: counts[each] for each in STATUSES}})
    return Answer(status, body, consumer_ids=consumer_ids)
