"""The kinds of import files: their checks and storage."""

from collections.abc import Callable

import msgspec

from infra.imports import consumers, orders, rules
from infra.imports.rules import Environment, Rules
from infra.imports.staging import Db, Outcome


class Kind(msgspec.Struct, frozen=True):
    required: tuple[str, ...]
    """At least one of these fields must have a column in the file."""
    rules: Rules
    prepare: Callable[[Db], None]
    store: Callable[[Db, Environment], Outcome]


CONSUMERS = Kind(
    required=("externalId", "email"),
    rules=rules.CONSUMERS,
    prepare=consumers.prepare,
    store=consumers.store,
)
ORDERS = Kind(
    required=("externalId",),
    rules=rules.ORDERS,
    prepare=orders.prepare,
    store=orders.store,
)
