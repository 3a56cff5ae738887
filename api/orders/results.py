"""The outcomes of a batch of orders, item by item."""

from typing import Annotated, Any, ClassVar

import msgspec

from api.batch_results import BatchCounts, ItemResult
from api.orders.schemas import Order


class OrderResult(ItemResult):
    """The outcome of an item. `order` is absent if the item failed, and with `Prefer: return=minimal`."""

    order: Order | msgspec.UnsetType = msgspec.UNSET

    example: ClassVar[dict[str, Any]] = {
        "index": 0,
        "status": "created",
        "id": Order.example["id"],
        "errors": [],
        "order": Order.example,
    }


class OrderResults(BatchCounts, kw_only=True):
    """The outcomes of a batch of orders."""

    results: Annotated[list[OrderResult], msgspec.Meta(description="In the order of the request.")]

    example: ClassVar[dict[str, Any]] = {
        "results": [OrderResult.example],
        "created": 1,
        "updated": 0,
        "unchanged": 0,
        "failed": 0,
    }
