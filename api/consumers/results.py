"""The outcomes of a batch of consumers, item by item."""

from typing import Annotated, Any, ClassVar

import msgspec

from api.batch_results import BatchCounts, ItemResult
from infra.index.documents import Consumer


class ConsumerResult(ItemResult):
    """The outcome of an item. `consumer` is absent if the item failed, and with `Prefer: return=minimal`."""

    consumer: Consumer | msgspec.UnsetType = msgspec.UNSET

    example: ClassVar[dict[str, Any]] = {
        "index": 0,
        "status": "created",
        "id": Consumer.example["id"],
        "errors": [],
        "consumer": Consumer.example,
    }


class ConsumerResults(BatchCounts, kw_only=True):
    """The outcomes of a batch of consumers."""

    results: Annotated[list[ConsumerResult], msgspec.Meta(description="In the order of the request.")]

    example: ClassVar[dict[str, Any]] = {
        "results": [ConsumerResult.example],
        "created": 1,
        "updated": 0,
        "unchanged": 0,
        "failed": 0,
    }
