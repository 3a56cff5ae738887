"""The answer to a batch whose items are stored or refused each for itself: the outcome of each item."""

from collections import Counter
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from api.answers import Answer
from api.drafts import Draft
from api.errors import MAX_FAULTS, UNLISTED, ErrorDetail, Faults, ItemFault, detail

Status = Literal["created", "updated", "unchanged", "failed"]
STATUSES: tuple[Status, ...] = ("created", "updated", "unchanged", "failed")


class Outcome(NamedTuple):
    """The outcome of an item."""

    status: Status
    id: str | None = None
    body: bytes = b""
    """The object as JSON; empty if the item failed."""
    faults: Faults | None = None
    """Of an item that failed."""
    consumer_id: str | None = None
    """The consumer with data in `body`."""
    version: int = 0
    """Of a consumer, for the entity tag."""


class ItemResult(msgspec.Struct, rename="camel"):
    """The outcome of an item of a batch, without the object."""

    index: Annotated[int, msgspec.Meta(description="The position of the item in the request, from 0.")]
    status: Annotated[Status, msgspec.Meta(description="`unchanged`: the object has all values of the item already.")]
    id: Annotated[str, msgspec.Meta(description="The id of the object; null if the item failed.")] | None
    errors: Annotated[
        list[ErrorDetail],
        msgspec.Meta(
            description=f"The faults of the item, if it failed. An answer lists at most {MAX_FAULTS} faults, and the "
            "first of each item before further faults of an item; `message` says how many are not listed."
        ),
    ]


class BatchCounts(msgspec.Struct, rename="camel"):
    """Numbers of outcomes."""

    created: Annotated[int, msgspec.Meta(description="Objects created.")]
    updated: Annotated[int, msgspec.Meta(description="Objects changed.")]
    unchanged: Annotated[int, msgspec.Meta(description="Items without a change.")]
    failed: Annotated[int, msgspec.Meta(description="Items with faults; nothing was stored of them.")]
    message: (
        Annotated[str, msgspec.Meta(description="The number of faults that are not listed. Absent if all are.")]
        | msgspec.UnsetType
    ) = msgspec.UNSET


def failed_items(draft: Draft[Any], found: Iterable[ItemFault]) -> dict[int, Faults]:
    """Return by item the schema faults, and the faults found in the database."""
    failed = {index: faults.joined(()) for index, faults in draft.item_faults.items()}
    for item in found:
        failed.setdefault(item.index, Faults()).append(item.fault)
    return failed


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
    numbers = _listed(outcomes)
    for index, (outcome, number) in enumerate(zip(outcomes, numbers, strict=True)):
        path = f"[{index}]"
        listed = outcome.faults.listed[:number] if outcome.faults else []
        errors = [detail(fault, fault.field.removeprefix(path).removeprefix(".")) for fault in listed]
        result = {"index": index, "status": outcome.status, "id": outcome.id, "errors": errors}
        results.append(result if minimal or not outcome.body else result | {name: msgspec.Raw(outcome.body)})
    counts = Counter(outcome.status for outcome in outcomes)
    content: dict[str, Any] = {"results": results, **{each: counts[each] for each in STATUSES}}
    if unlisted := sum(outcome.faults.count for outcome in outcomes if outcome.faults) - sum(numbers):
        content["message"] = UNLISTED.format(unlisted)
    return Answer(status, msgspec.json.encode(content), consumer_ids=consumer_ids)


def _listed(outcomes: Sequence[Outcome]) -> list[int]:
    """Return the number of faults to list of each outcome: the first of each item, then further faults in order."""
    numbers = [0] * len(outcomes)
    available = MAX_FAULTS
    for most in (1, MAX_FAULTS):
        for index, outcome in enumerate(outcomes):
            if outcome.faults:
                added = min(len(outcome.faults.listed), most, numbers[index] + available) - numbers[index]
                numbers[index] += added
                available -= added
    return numbers
