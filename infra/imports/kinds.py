"""The kinds of import files: their fields, checks and storage."""

from collections.abc import Callable

import msgspec

from infra.imports import consumers, orders, rules
from infra.imports.rules import Environment, Rules
from infra.imports.staging import Db, Outcome


class Kind(msgspec.Struct, frozen=True):
    fields: dict[str, str]
    """Field name in the API → column of the staging table."""
    required: tuple[str, ...]
    """At least one of these fields must have a column in the file."""
    rules: Rules
    prepare: Callable[[Db], None]
    store: Callable[[Db, Environment], Outcome]


CONSUMERS = Kind(
    fields={"externalId": "external_id", "fullName": "full_name", "email": "email", "phone": "phone"},
    required=("externalId", "email"),
    rules=rules.CONSUMERS,
    prepare=consumers.prepare,
    store=consumers.store,
)
ORDERS = Kind(
    fields={
        "consumerId": "consumer_id",
        "consumerExternalId": "consumer_external_id",
        "consumerEmail": "email",
        "externalId": "external_id",
        "status": "status",
        "amount": "amount",
        "refundedAmount": "refunded_amount",
        "currencyCode": "currency_code",
        "baseAmount": "base_amount",
        "placedAt": "placed_at",
    },
    required=("externalId",),
    rules=rules.ORDERS,
    prepare=orders.prepare,
    store=orders.store,
)
