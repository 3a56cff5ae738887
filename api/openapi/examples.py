"""Examples of what is sent and answered. A test sends each, and checks each against its schema."""

from http import HTTPStatus
from typing import Any

from api.audiences.schemas import (
    Audience,
    AudienceChange,
    AudienceCount,
    AudiencePage,
    Members,
    MembersChanged,
    NewAudience,
)
from api.consumers.schemas import ConsumerChange, ConsumerChangeItem, NewConsumer
from api.consumers.shown import ConsumerIncluding, ConsumerPage, SearchPage
from api.errors import SENTENCES
from api.operations.consumer_state import IndexState
from api.operations.reindex import Reindex, Reindexes
from api.operations.verify import Repair, Verification, Verifications
from api.orders.schemas import NewOrder, Order, OrderChange, OrderPage
from infra.index.documents import Consumer
from infra.operations.rebuild import Rebuild
from infra.operations.reindex import Counted
from infra.operations.status import Status
from infra.operations.verify import CAUSES, Run

CONSUMER_ID, ORDER_ID, AUDIENCE_ID = (f"{prefix}_01JBK3Q8X5W5V0B6T1R2M3N4P5" for prefix in ("cons", "ord", "aud"))
TIME = "2024-11-01T10:00:00.000Z"
TIMES = {"createdAt": TIME, "updatedAt": TIME}
PAGE = {"startCursor": "q2Zr…", "endCursor": "q2Zr…", "hasNextPage": False, "hasPreviousPage": False}

GIVEN = {
    "email": "jose@example.com",
    "phone": "+442079460000",
    "fullName": "José García",
    "metadata": {"tier": "gold"},
    "externalId": "customer-17850",
}
CONSUMER = {
    "id": CONSUMER_ID,
    **GIVEN,
    "totalOrders": 2,
    "totalOrderValue": 1234.5,
    "lastOrderAt": TIME,
    **TIMES,
}
MATCHES = [{"field": "fullName", "kind": "prefix", "text": "jose"}]
ITEMS = [{"productId": "85123A", "variantId": None, "quantity": 6, "unitAmount": "2.55"}]
ORDER = {
    "id": ORDER_ID,
    "consumerId": CONSUMER_ID,
    "externalId": "order-536365",
    "status": "COMPLETED",
    "amount": "149.99",
    "refundedAmount": "0",
    "currencyCode": "USD",
    "baseAmount": "149.99",
    "items": ITEMS,
    "metadata": None,
    "placedAt": TIME,
    **TIMES,
}
RULES = [{"field": "totalOrderValue", "operator": "GREATER_THAN", "values": [1000]}]
AUDIENCE = {
    "id": AUDIENCE_ID,
    "name": "Big spenders",
    "description": None,
    "metadata": None,
    "type": "DYNAMIC",
    "rules": RULES,
    **TIMES,
}
RUN = {
    "id": 12,
    "kind": "verify",
    "state": "done",
    "environment": None,
    "repairs": None,
    "scope": None,
    "indexName": "consumers-000001",
    "total": 1000000,
    "compared": 1000000,
    "inFlight": 3,
    "differences": 1,
    "causes": {"stale": 1},
    "mended": 0,
    "error": None,
    "requestedAt": TIME,
    "startedAt": TIME,
    "finishedAt": TIME,
    "seconds": 28.4,
}
REINDEX = RUN | {
    "id": 13,
    "kind": "reindex",
    "environment": "shop:live",
    "scope": {"filter": "metadata.tier:gold"},
    "total": 5000,
    "compared": 5000,
    "inFlight": 0,
    "differences": 0,
    "causes": {},
    "seconds": 0.7,
}
DIFFERENCE = {
    "documentId": CONSUMER_ID,
    "cause": "stale",
    "environment": "shop:live",
    "databaseVersion": 1048578,
    "indexVersion": 1048577,
    "foundAt": TIME,
}

REBUILD = {
    "id": 2,
    "indexName": "consumers-000002",
    "state": "filling",
    "phase": "filling",
    "isPaused": False,
    "wanted": None,
    "documentVersion": 1,
    "documents": 340_000,
    "total": 1_000_000,
    "misses": 0,
    "documentsPerSecond": 17_000,
    "remainingSeconds": 39,
    "lagMs": 12,
    "differences": None,
    "error": None,
    "startedAt": TIME,
    "endedAt": None,
    "keepUntil": None,
}
GENERATION = {
    "indexName": "consumers-000001",
    "state": "live",
    "documentVersion": 1,
    "isAsDeclared": True,
    "liveAt": TIME,
    "keepUntil": None,
    "lostAt": None,
    "position": 1_204_311,
    "misses": 0,
    "index": "open",
    "documents": 1_000_000,
    "bytes": 521_000_000,
    "aliases": ["read", "write"],
}
INDEX_STATE = {
    "databaseVersion": 1048577,
    "isSearchable": True,
    "change": None,
    "generations": [
        {"indexName": "consumers-000001", "state": "live", "version": 1048577, "isDeleted": False},
    ],
}
STATUS = {
    "search": "ok",
    "generations": [GENERATION],
    "rebuild": REBUILD,
    "parts": [{"part": "live", "silentSeconds": 0.4}],
    "waiting": [{"lane": "live", "waiting": 3, "oldestSeconds": 0.01, "parked": 0}],
    "done": [],
    "workers": [],
    "parked": [],
    "verified": [RUN],
    "running": [],
    "differing": {},
}

EXAMPLES: dict[Any, Any] = {
    NewConsumer: GIVEN,
    ConsumerChange: {"fullName": "José García Núñez", "metadata": {"tier": None}},
    ConsumerChangeItem: {"id": CONSUMER_ID, "phone": None},
    Consumer: CONSUMER,
    list[Consumer]: [CONSUMER],
    ConsumerIncluding: CONSUMER | {"audiences": [{"id": AUDIENCE_ID, "name": "Big spenders", "type": "DYNAMIC"}]},
    ConsumerPage: {"data": [CONSUMER], "pageInfo": PAGE},
    SearchPage: {"data": [CONSUMER | {"matchedOn": MATCHES}], "pageInfo": PAGE},
    NewOrder: {"consumer": {"externalId": "customer-17850"}, "amount": "149.99", "items": ITEMS},
    OrderChange: {"status": "REFUNDED", "refundedAmount": "149.99"},
    Order: ORDER,
    list[Order]: [ORDER],
    OrderPage: {"data": [ORDER], "pageInfo": PAGE},
    NewAudience: {"name": "Big spenders", "type": "DYNAMIC", "rules": RULES},
    AudienceChange: {"name": "Biggest spenders"},
    Audience: AUDIENCE,
    AudiencePage: {"data": [AUDIENCE], "pageInfo": PAGE},
    Members: {"consumerIds": [CONSUMER_ID]},
    MembersChanged: {"audienceId": AUDIENCE_ID, "addedCount": 1},
    IndexState: INDEX_STATE,
    Rebuild: REBUILD,
    Status: STATUS,
    AudienceCount: {"audienceId": AUDIENCE_ID, "count": 1},
    Verification: {},
    Repair: {"run": 12},
    Run: RUN,
    Reindex: {"updatedSince": "2024-11-01", "dryRun": True},
    Counted: {"consumers": 5000, "isDryRun": True},
    Reindexes: {"runs": [REINDEX]},
    Verifications: {
        "runs": [RUN],
        "differing": dict.fromkeys(CAUSES, 0) | {"stale": 1},
        "differences": [DIFFERENCE],
    },
}

ERRORS: dict[HTTPStatus, dict[str, Any]] = {
    HTTPStatus.UNAUTHORIZED: {"error": "Authentication required"},
    HTTPStatus.FORBIDDEN: {"error": "Forbidden", "message": "This key lacks the scope write:consumers"},
    HTTPStatus.CONFLICT: {"error": "Conflict", "message": "This Idempotency-Key was used for another request"},
    HTTPStatus.PRECONDITION_FAILED: {"error": "Precondition failed", "message": 'It is now "1048577"'},
    HTTPStatus.TOO_MANY_REQUESTS: {"error": "Rate limit exceeded", "retryAfter": 30},
    HTTPStatus.INTERNAL_SERVER_ERROR: {"error": "Internal server error"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"error": "Database unavailable"},
}
FAULTS = [{"field": "email", "message": "Invalid email format"}]


def error_example(status: HTTPStatus, resource: str) -> dict[str, Any]:
    """An example of an error.

    Args:
        status: of the answer.
        resource: whose routes answer it, in the plural.
    """
    if status == HTTPStatus.NOT_FOUND:
        return {"error": f"{resource.removesuffix('s').capitalize()} not found"}
    if status == HTTPStatus.BAD_REQUEST:
        return {"error": SENTENCES[status], "details": FAULTS}
    return ERRORS.get(status) or {"error": SENTENCES[status]}
