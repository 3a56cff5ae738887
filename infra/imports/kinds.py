"""The kinds of import files: their checks and storage."""

from collections.abc import Callable, Hashable

import msgspec

from infra.imports import consumers, exports, orders, rules
from infra.imports.exported import Environment
from infra.imports.rules import Rules
from infra.imports.staging import Db, Outcome


class Kind(msgspec.Struct, frozen=True):
    name: str
    required: tuple[str, ...]
    """At least one of these fields must have a column in the file."""
    rules: Rules
    prepare: Callable[[Db], None]
    store: Callable[[Db, Environment, set[Hashable]], Outcome]
    settle: Callable[[Db, Environment], Outcome]
    """Store the deferred rows of `store`."""
    has_people: bool = False
    """Whether `externalId` and `email` identify a person, hence must agree in all rows."""


CONSUMERS = Kind(
    name=exports.CONSUMERS,
    required=("externalId", "email"),
    rules=rules.CONSUMERS,
    prepare=consumers.prepare,
    store=consumers.store,
    settle=consumers.settle,
    has_people=True,
)
ORDERS = Kind(
    name=exports.ORDERS,
    required=("externalId",),
    rules=rules.ORDERS,
    prepare=orders.prepare,
    store=lambda connection, environment, _waiting: orders.store(connection, environment),
    settle=orders.store,
)
