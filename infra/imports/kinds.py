"""The kinds of import files: their checks and storage."""

from collections.abc import Callable, Hashable
from collections.abc import Set as AbstractSet
from typing import Protocol

import msgspec

from infra.imports import consumers, exports, orders, rules
from infra.imports.exported import Environment
from infra.imports.rules import Rules
from infra.imports.staging import Db, Outcome


class Store(Protocol):
    """Store the rows of the staging table; see `infra.imports.consumers.store`."""

    def __call__(self, connection: Db, environment: Environment, *, waiting: AbstractSet[Hashable]) -> Outcome: ...


class Kind(msgspec.Struct, frozen=True):
    name: str
    required: tuple[str, ...]
    """At least one of these fields must have a column in the file."""
    rules: Rules
    prepare: Callable[[Db], None]
    store: Store
    settle: Callable[[Db, Environment], Outcome]
    """Store the deferred rows of `store`."""
    has_people: bool = False
    """Whether `externalId` and `email` identify a person, hence must agree in all rows."""


def _store_orders(connection: Db, environment: Environment, *, waiting: AbstractSet[Hashable]) -> Outcome:
    del waiting  # no order is deferred
    return orders.store(connection, environment)


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
    store=_store_orders,
    settle=orders.store,
)
