"""The write path: orders in PostgreSQL. Triggers update the consumer's totals in the same transaction."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.drafts import Draft, ObjectDraft
from api.error_codes import ErrorCode
from api.errors import Fault, ItemFault, not_found
from api.orders.rows import COLUMNS, encode, order_of, stored_items
from api.orders.schemas import Order, OrderCreate, OrderUpdate
from api.orders.values import TOTAL_EXCEEDED, TOTAL_MAX, value_of
from api.reserved_values import RESERVED, reserved
from api.transactions import ValueTaken
from infra.database.engine import OPAQUE_ENVIRONMENT_ID
from infra.ids import is_id, new_ids
from infra.merge_patch import merge
from infra.wire import raw

EXTERNAL_ID_EXISTS = "External ID already exists"

# A separate subquery for each way to name a consumer uses the index of the column.
FIND_CONSUMERS = sa.text(f"""
    SELECT w.item, CASE
        WHEN w.email IS NOT NULL THEN
            (SELECT c.id FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID}
             AND c.email_key = lower(w.email COLLATE pg_c_utf8) COLLATE "C")
        ELSE
            (SELECT c.id FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID}
             AND c.external_id = w.external_id) END AS id
    FROM unnest(CAST(:items AS int[]), CAST(:emails AS text[]), CAST(:external_ids AS text[]))
        AS w (item, email, external_id)""")
# Consumers are locked before any of their orders, and in the order of their ids: otherwise a write of orders and a
# delete of a consumer could deadlock.
LOCK_CONSUMERS = sa.text(f"""
    SELECT id, total_order_value FROM consumers
    WHERE environment_id = {OPAQUE_ENVIRONMENT_ID} AND id = ANY(:ids) AND {RESERVED}
    ORDER BY id FOR NO KEY UPDATE""")
FIND_TAKEN = sa.text(f"""
    SELECT external_id, id FROM orders
    WHERE environment_id = {OPAQUE_ENVIRONMENT_ID} AND external_id = ANY(:external_ids)
      AND id IS DISTINCT FROM CAST(:own_id AS text)""")
SETTABLE = tuple(name for name in OrderCreate.__struct_fields__ if name not in {"consumer_id", "consumer", "placed_at"})
"""Columns that take the order's value as it is, unlike the consumer and the time of the order."""
# PostgreSQL assigns the values to columns by name, and takes the types from the table.
WRITTEN = "json_populate_recordset(NULL::orders, CAST(:rows AS json)) w"
# Rows are inserted in the order of their unique values: two batches with the same values in different orders would
# deadlock, and PostgreSQL would abort a batch. All orders of a batch have the same time nevertheless.
INSERT = sa.text(f"""
    WITH moment AS MATERIALIZED (SELECT present() AS at)
    INSERT INTO orders AS o (environment_id, id, consumer_id, {", ".join(SETTABLE)}, placed_at, created_at, updated_at)
    SELECT :environment_id, w.id, w.consumer_id, {", ".join(f"w.{column}" for column in SETTABLE)},
        coalesce(w.placed_at, moment.at), moment.at, moment.at
    FROM {WRITTEN} CROSS JOIN moment ORDER BY w.external_id COLLATE "C" ON CONFLICT DO NOTHING RETURNING {COLUMNS}""")
GET = sa.text(f"SELECT {COLUMNS}, o.value FROM orders o WHERE o.environment_id = :environment_id AND o.id = :id")
LOCK_ORDER = sa.text(f"{GET.text} FOR UPDATE")
NEWEST = sa.text(f"""
    SELECT {COLUMNS} FROM orders o WHERE o.environment_id = :environment_id AND o.consumer_id = :consumer_id
    ORDER BY o.placed_at DESC, o.id DESC LIMIT :number""")
# `+ 0` keeps the planner from an index that begins with the environment: the rows must be found by their ids.
UPDATE = sa.text(f"""
    UPDATE orders o SET {", ".join(f"{column} = w.{column}" for column in SETTABLE)}, placed_at = w.placed_at
    FROM {WRITTEN} WHERE o.environment_id + 0 = :environment_id AND o.id = w.id AND o.id = ANY(:ids)
    RETURNING {COLUMNS}""")
DELETE = sa.text("DELETE FROM orders WHERE environment_id = :environment_id AND id = :id")


class LockedConsumers(NamedTuple):
    """The consumers of a request's orders, locked."""

    ids: dict[int, str]
    """The consumer's id by the index of the order in the request; unknown consumers are missing."""
    totals: dict[str, Decimal]
    """`total_order_value` by the id of the consumer."""


async def create(connection: AsyncConnection, caller: Caller, draft: Draft[OrderCreate]) -> list[Order]:
    """Insert orders, all or none; return the orders as in the request.

    Raises:
        Problem: 400 with the schema faults, unknown consumers, taken external ids, and excessive totals of consumers.
        ValueTaken: an external id is taken; `explain_conflict` names all such ids.
    """
    orders = _by_index(draft)
    locked = await lock_consumers(connection, caller, orders)
    faults = _consumer_faults(draft, orders, locked)
    if draft.faults or faults:
        draft.refuse([*faults, *await find_taken(connection, caller, orders)])
    if not orders:
        return []
    rows = new_rows(caller, list(orders.values()), locked.ids)
    values = {"environment_id": caller.environment_id, "rows": encode(rows).decode()}
    stored = {row.id: row for row in await connection.execute(INSERT, values)}
    if len(stored) < len(rows):
        raise ValueTaken
    return [order_of(stored[row["id"]]) for row in rows]


async def explain_conflict(connection: AsyncConnection, caller: Caller, draft: Draft[OrderCreate]) -> None:
    """Raise the 400 of `create`, with every taken external id; return if there are no faults."""
    orders = _by_index(draft)
    locked = await lock_consumers(connection, caller, orders)
    draft.refuse([*_consumer_faults(draft, orders, locked), *await find_taken(connection, caller, orders)])


async def get(connection: AsyncConnection, caller: Caller, order_id: str) -> Order:
    """Read an order.

    Raises:
        Problem: 404 if the environment has no such order.
    """
    return order_of(_row_or_404(await _find(connection, GET, caller, order_id)))


async def update(connection: AsyncConnection, caller: Caller, order_id: str, draft: ObjectDraft[OrderUpdate]) -> Order:
    """Change an order; the consumer's totals follow.

    Raises:
        Problem: 404; 400 for the faults of `create`, or if the change names another consumer.
    """
    row, total = await _lock_order(connection, caller, order_id, draft.value.external_id)
    changed, faults = changed_order(row, draft.value, caller, is_valid=not draft.faults)
    item_faults = [ItemFault(0, fault) for fault in faults]
    item_faults += await find_taken(connection, caller, {0: changed}, own_id=order_id)
    if not draft.faults and total - row.value + value_of(changed) > TOTAL_MAX:
        item_faults.append(ItemFault(0, Fault("amount", TOTAL_EXCEEDED, ErrorCode.OUT_OF_RANGE)))
    draft.refuse(item_faults)
    [new] = new_rows(caller, [changed], {0: row.consumer_id})
    # Unchanged JSON is written back as the database's text: numbers there may be longer than Python's floats.
    unchanged = [name for name in ("items", "metadata") if getattr(draft.value, name) is msgspec.UNSET]
    new |= {name: raw(getattr(row, name)) for name in unchanged} | {"id": order_id}
    values = {"environment_id": caller.environment_id, "ids": [order_id], "rows": encode([new]).decode()}
    return order_of((await connection.execute(UPDATE, values)).one())


async def delete(connection: AsyncConnection, caller: Caller, order_id: str) -> Order:
    """Delete an order and return the deleted order; the consumer's totals follow.

    Raises:
        Problem: 404.
    """
    row, _ = await _lock_order(connection, caller, order_id)
    await connection.execute(DELETE, {"environment_id": caller.environment_id, "id": order_id})
    return order_of(row)


async def newest(connection: AsyncConnection, caller: Caller, consumer_id: str, number: int) -> list[Order]:
    """Read the newest orders of a consumer."""
    values = {"environment_id": caller.environment_id, "consumer_id": consumer_id, "number": number}
    return [order_of(row) for row in await connection.execute(NEWEST, values)]


def _by_index(draft: Draft[OrderCreate]) -> dict[int, OrderCreate]:
    return {index: order for index, order in enumerate(draft.items) if order}


async def lock_consumers(
    connection: AsyncConnection, caller: Caller, orders: Mapping[int, OrderCreate]
) -> LockedConsumers:
    """Lock the consumers of orders, and the external ids of the orders."""
    environment = {"environment_id": caller.environment_id}
    ids = {index: order.consumer_id for index, order in orders.items() if order.consumer_id is not None}
    references = {index: order.consumer for index, order in orders.items() if order.consumer and index not in ids}
    if references:
        values = {
            "items": list(references),
            "emails": [reference.email for reference in references.values()],
            "external_ids": [reference.external_id for reference in references.values()],
        }
        found = await connection.execute(FIND_CONSUMERS, environment | values)
        ids |= {row.item: row.id for row in found if row.id is not None}
    reserved_ids = reserved(order.external_id for order in orders.values())
    locking = {"ids": list(set(ids.values())), "reserved": reserved_ids}
    rows = await connection.execute(LOCK_CONSUMERS, environment | locking)
    totals = {row.id: row.total_order_value for row in rows}
    # An id of another environment is unknown, and so is a consumer deleted between the two statements.
    return LockedConsumers({index: ids[index] for index in orders if ids.get(index) in totals}, totals)


def _consumer_faults(
    draft: Draft[OrderCreate], orders: Mapping[int, OrderCreate], locked: LockedConsumers
) -> list[ItemFault]:
    """Return a fault for each order with an unknown consumer, or with too large a total for the consumer."""
    faults = [
        ItemFault(index, unknown_consumer(order))
        for index, order in orders.items()
        if index not in locked.ids and (order.consumer_id, order.consumer) != (None, None)
    ]
    # The value of an order with a faulty field is unknown.
    return faults if draft.faults else faults + _excessive_totals(orders, locked)


def unknown_consumer(order: OrderCreate) -> Fault:
    field = "consumer" if order.consumer_id is None else "consumerId"
    return Fault(field, "Unknown consumer: create the consumer first", ErrorCode.CONSUMER_NOT_FOUND)


def _excessive_totals(orders: Mapping[int, OrderCreate], locked: LockedConsumers) -> list[ItemFault]:
    by_consumer: dict[str, list[int]] = defaultdict(list)
    for index, consumer_id in locked.ids.items():
        by_consumer[consumer_id].append(index)
    return [
        ItemFault(index, Fault("amount", TOTAL_EXCEEDED, ErrorCode.OUT_OF_RANGE))
        for consumer_id, indexes in by_consumer.items()
        if locked.totals[consumer_id] + sum(value_of(orders[index]) for index in indexes) > TOTAL_MAX
        for index in indexes
    ]


async def find_taken(
    connection: AsyncConnection, caller: Caller, orders: Mapping[int, OrderCreate], *, own_id: str | None = None
) -> list[ItemFault]:
    """Return a fault for each external id of a stored order, and of an earlier order of the request."""
    owners = await find_owners(connection, caller, orders, own_id=own_id)
    faults = [ItemFault(index, taken(owner)) for index, owner in owners.items()]
    first: dict[str, int] = {}
    for index, order in orders.items():
        external_id = order.external_id if index not in owners else None
        if external_id is not None and first.setdefault(external_id, index) != index:
            faults.append(ItemFault(index, repeated(first[external_id])))
    return sorted(faults, key=lambda item: item.index)


async def find_owners(
    connection: AsyncConnection, caller: Caller, orders: Mapping[int, OrderCreate], *, own_id: str | None = None
) -> dict[int, str]:
    """Return the ids of stored orders with the external ids of `orders`, by the index of the order."""
    external_ids = [order.external_id for order in orders.values() if order.external_id is not None]
    if not external_ids:
        return {}
    values = {"environment_id": caller.environment_id, "external_ids": external_ids, "own_id": own_id}
    owners: dict[str, str] = {row.external_id: row.id for row in await connection.execute(FIND_TAKEN, values)}
    return {index: owners[order.external_id] for index, order in orders.items() if order.external_id in owners}


def taken(owner: str) -> Fault:
    return Fault("externalId", EXTERNAL_ID_EXISTS, ErrorCode.EXTERNAL_ID_TAKEN, owner)


def repeated(first: int) -> Fault:
    """Return the fault of an external id that an earlier item of the batch has."""
    return Fault("externalId", f"Same as [{first}]", ErrorCode.DUPLICATE)


async def _lock_order(
    connection: AsyncConnection, caller: Caller, order_id: str, external_id: str | msgspec.UnsetType | None = None
) -> tuple[sa.Row[Any], Decimal]:
    """Lock the order's new external id, the consumer, then the order; return the order and the consumer's total."""
    row = _row_or_404(await _find(connection, GET, caller, order_id))
    values = {"environment_id": caller.environment_id, "ids": [row.consumer_id], "reserved": reserved([external_id])}
    consumer = (await connection.execute(LOCK_CONSUMERS, values)).one_or_none()
    row = _row_or_404(consumer and await _find(connection, LOCK_ORDER, caller, order_id))
    assert consumer is not None
    return row, consumer.total_order_value


async def _find(
    connection: AsyncConnection, statement: sa.TextClause, caller: Caller, order_id: str
) -> sa.Row[Any] | None:
    if not is_id("ord_", order_id):
        return None
    values = {"environment_id": caller.environment_id, "id": order_id}
    return (await connection.execute(statement, values)).one_or_none()


def _row_or_404(row: sa.Row[Any] | None) -> sa.Row[Any]:
    if row is None:
        raise not_found("Order")
    return row


def changed_order(
    row: sa.Row[Any], change: OrderUpdate, caller: Caller, *, is_valid: bool
) -> tuple[OrderCreate, list[Fault]]:
    """Return the order after the change, and its faults.

    Faults between fields are looked for only if the change has no schema faults (`is_valid`).
    """
    changes = {
        name: new for name in OrderUpdate.__struct_fields__ if (new := getattr(change, name)) is not msgspec.UNSET
    }
    stored = {
        name: getattr(row, name) for name in ("consumer_id", "external_id", "status", "currency_code", "placed_at")
    }
    stored |= {name: Decimal(getattr(row, name)) for name in ("amount", "refunded_amount", "base_amount")}
    stored["metadata"] = row.metadata and msgspec.json.decode(row.metadata)
    faults = []
    if changes.get("metadata") is not None:
        try:
            changes["metadata"] = merge(row.metadata, changes["metadata"])
        except ValueError as error:
            faults.append(Fault("metadata", str(error), ErrorCode.INVALID_METADATA))
    if changes.get("consumer_id", row.consumer_id) != row.consumer_id:
        message = "The consumer of an order cannot be changed: leave consumerId out"
        faults.append(Fault("consumerId", message, ErrorCode.NOT_CHANGEABLE))
    is_revalued = any(changes[name] != stored[name] for name in ("amount", "currency_code") if name in changes)
    if is_revalued and "base_amount" not in changes:
        stored["base_amount"] = None
    changed = OrderCreate(**stored | changes)
    if is_valid:
        faults += changed.faults(caller)
    return changed, faults


def new_rows(caller: Caller, orders: Sequence[OrderCreate], consumer_ids: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return the rows to write, with new ids. `consumer_ids` are by the index of the order."""
    return [
        {column: getattr(order, column) for column in SETTABLE}
        | {
            "id": order_id,
            "consumer_id": consumer_ids[index],
            "currency_code": order.currency_code or caller.currency,
            "base_amount": order.amount if order.base_amount is None else order.base_amount,
            "items": stored_items(order.items),
            "placed_at": order.placed_at,
        }
        for index, (order, order_id) in enumerate(zip(orders, new_ids("ord_", len(orders)), strict=True))
    ]
