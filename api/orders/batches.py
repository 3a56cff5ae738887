"""Writes of orders that decide item by item: upserts, and batches with `onError=continue` (contract.md §3)."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.batch_results import Outcome, Status, failed_items
from api.drafts import Draft
from api.error_codes import ErrorCode
from api.errors import Fault, Faults, ItemFault
from api.orders.rows import COLUMNS, encode, order_of, stored_items
from api.orders.schemas import Order, OrderCreate, OrderUpsert
from api.orders.values import TOTAL_EXCEEDED, TOTAL_MAX, value_of
from api.orders.writes import (
    INSERT,
    SETTABLE,
    UPDATE,
    LockedConsumers,
    changed_order,
    find_owners,
    lock_consumers,
    new_rows,
    repeated,
    taken,
    unknown_consumer,
)
from api.transactions import ValueTaken
from infra.database.engine import OPAQUE_ENVIRONMENT_ID
from infra.merge_patch import merge
from infra.wire import is_same_json, raw

FIND = sa.text(f"""
    SELECT external_id, id, consumer_id FROM orders
    WHERE environment_id = {OPAQUE_ENVIRONMENT_ID} AND external_id = ANY(CAST(:external_ids AS text[]))""")
# `+ 0` keeps the planner from an index that begins with the environment: rows must be found by their ids.
LOCK = sa.text(f"""
    SELECT {COLUMNS}, o.value FROM orders o WHERE o.environment_id + 0 = :environment_id AND o.id = ANY(:ids)
    ORDER BY o.id FOR UPDATE""")


MISSING = Fault("externalId", "Required, because externalId names the order", ErrorCode.REQUIRED)
REPEATED = Fault("externalId", "An earlier item has the same value", ErrorCode.DUPLICATE)
OTHER_CONSUMER = Fault(
    "consumer", "The consumer of an order cannot be changed: leave consumer out", ErrorCode.NOT_CHANGEABLE
)


class _Item(NamedTuple):
    """An item of a batch: the order to store, and the stored order that it changes."""

    order: OrderCreate
    row: sa.Row[Any] | None = None
    change: OrderUpsert | None = None

    @property
    def added_value(self) -> Decimal:
        """The change of the consumer's total."""
        return value_of(self.order) - (self.row.value if self.row else 0)


async def create(connection: AsyncConnection, caller: Caller, draft: Draft[OrderCreate]) -> list[Outcome]:
    """Insert the orders without faults; return the outcomes in the order of the request."""
    orders = {index: order for index, order in enumerate(draft.items) if order and index not in draft.item_faults}
    locked = await lock_consumers(connection, caller, orders)
    faults = [ItemFault(index, unknown_consumer(order)) for index, order in orders.items() if index not in locked.ids]
    owners = await find_owners(connection, caller, orders)
    faults += [ItemFault(index, taken(owner)) for index, owner in owners.items()]
    items = {index: _Item(order) for index, order in orders.items()}
    return await _store(connection, caller, draft, items, locked, faults, go_on=True)


async def upsert(
    connection: AsyncConnection, caller: Caller, draft: Draft[OrderUpsert], *, go_on: bool
) -> list[Outcome]:
    """Change the order with an item's external id, or create an order; return the outcomes as in the request.

    Args:
        connection: in a transaction.
        caller: the environment.
        draft: the items.
        go_on: store the valid items even if others have faults.

    Raises:
        Problem: 400 with all faults, unless `go_on`.
        ValueTaken: another request stored or deleted an order meanwhile; the next attempt finds the present state.
    """
    changes = {index: item for index, item in enumerate(draft.items) if item and index not in draft.item_faults}
    keys = {index: key for index, item in changes.items() if isinstance(key := item.external_id, str)}
    values = {"environment_id": caller.environment_id, "external_ids": list(keys.values())}
    owners = {row.external_id: row for row in await connection.execute(FIND, values)}
    found = dict[int, sa.Row[Any]]()
    items, faults, seen = dict[int, _Item](), list[ItemFault](), set[str]()
    for index, change in changes.items():
        key = keys.get(index)
        if key is None or (key in seen and not go_on):
            faults.append(ItemFault(index, REPEATED if key else MISSING))
            continue
        seen.add(key)
        if key in owners:
            found[index] = owners[key]
        else:
            order, new_faults = _new(change, caller)
            faults += [ItemFault(index, fault) for fault in new_faults]
            if order:
                items[index] = _Item(order)
    references = {index: item.order for index, item in items.items()}
    references |= {index: _reference(changes[index], row.consumer_id) for index, row in found.items()}
    locked = await lock_consumers(connection, caller, references)
    faults += [
        ItemFault(index, unknown_consumer(order))
        for index, order in references.items()
        if index not in locked.ids and (order.consumer_id, order.consumer) != (None, None)
    ]
    values = {"environment_id": caller.environment_id, "ids": list({row.id for row in found.values()})}
    rows = {row.id: row for row in await connection.execute(LOCK, values)}
    for index, old in found.items():
        row = rows.get(old.id)
        if row is None or (row.external_id, row.consumer_id) != (old.external_id, old.consumer_id):
            raise ValueTaken
        if locked.ids.get(index, row.consumer_id) != row.consumer_id:
            faults.append(ItemFault(index, OTHER_CONSUMER))
        order, changed_faults = changed_order(row, changes[index], caller, is_valid=True)
        faults += [ItemFault(index, fault) for fault in changed_faults]
        items[index] = _Item(order, row, changes[index])
    return await _store(connection, caller, draft, items, locked, faults, go_on=go_on)


def _new(change: OrderUpsert, caller: Caller) -> tuple[OrderCreate | None, list[Fault]]:
    """Return the order that an item creates, and its faults; None if these allow no order."""
    sent = {
        name: value for name in OrderUpsert.__struct_fields__ if (value := getattr(change, name)) is not msgspec.UNSET
    }
    if "amount" not in sent:
        return None, [Fault("amount", "Required for a new order", ErrorCode.REQUIRED)]
    try:
        if sent.get("metadata") is not None:
            sent["metadata"] = merge(None, sent["metadata"])
    except ValueError as error:
        return None, [Fault("metadata", str(error), ErrorCode.INVALID_METADATA)]
    order = OrderCreate(**sent)
    return order, list(order.faults(caller))


def _reference(change: OrderUpsert, consumer_id: str) -> OrderCreate:
    """Return an order that names the consumer of a stored order as the item does."""
    if change.consumer is not msgspec.UNSET:
        return OrderCreate(amount=Decimal(0), consumer=change.consumer)
    return OrderCreate(amount=Decimal(0), consumer_id=consumer_id)


async def _store(
    connection: AsyncConnection,
    caller: Caller,
    draft: Draft[Any],
    items: Mapping[int, _Item],
    locked: LockedConsumers,
    found: Sequence[ItemFault],
    *,
    go_on: bool,
) -> list[Outcome]:
    """Store the items without faults."""
    failed = failed_items(draft, found)
    valid = {index: items[index] for index in sorted(items) if index not in failed}
    further = _repeated_or_excessive(valid, locked)
    if not go_on:
        draft.refuse([*found, *further])
    failed = failed_items(draft, [*found, *further])
    valid = {index: item for index, item in valid.items() if index not in failed}
    new = {index: item.order for index, item in valid.items() if item.row is None}
    changed = {index: item for index, item in valid.items() if item.row is not None and not _is_unchanged(item)}
    # Changes come first, because they may lower the totals that new orders raise.
    stored = await _update(connection, caller, changed) | await _insert(connection, caller, new, locked)
    return [_outcome(index, items, failed, stored) for index in range(len(draft.items))]


def _outcome(
    index: int, items: Mapping[int, _Item], failed: Mapping[int, Faults], stored: Mapping[int, Order]
) -> Outcome:
    if index in failed:
        return Outcome("failed", faults=failed[index])
    row = items[index].row
    status: Status = "created" if row is None else "updated" if index in stored else "unchanged"
    order = stored[index] if index in stored else order_of(row)  # type: ignore[arg-type]  # a new order is stored
    return Outcome(status, order.id, encode(order), consumer_id=order.consumer_id)


def _repeated_or_excessive(items: dict[int, _Item], locked: LockedConsumers) -> list[ItemFault]:
    """Return a fault for each item with the external id of an earlier item, or with too large a total for the consumer.

    The items are decided in order, and an item that fails keeps no external id from the items after. Totals count the
    items that lower them first, because the state after the batch counts.
    """
    totals, faults, stored = dict(locked.totals), list[ItemFault](), dict[str | None, int]()
    firsts = {item.order.external_id: index for index, item in reversed(items.items())}
    lowering = {index for index in firsts.values() if items[index].added_value < 0}
    for index in lowering:
        totals[locked.ids[index]] += items[index].added_value
    for index, item in items.items():
        external_id, consumer_id = item.order.external_id, locked.ids[index]
        total = totals[consumer_id] + (0 if index in lowering else item.added_value)
        if external_id in stored:
            faults.append(ItemFault(index, REPEATED if item.change else repeated(stored[external_id])))
        elif item.added_value > 0 and total > TOTAL_MAX:
            faults.append(ItemFault(index, Fault("amount", TOTAL_EXCEEDED, ErrorCode.OUT_OF_RANGE)))
        else:
            totals[consumer_id] = total
            if external_id is not None:
                stored[external_id] = index
    return faults


def _is_unchanged(item: _Item) -> bool:
    """Return whether each value that was sent is stored already."""
    row, change = item.row, item.change
    assert row, "a new order changes"
    for name in (*SETTABLE, "placed_at"):
        sent = getattr(change, name, msgspec.UNSET)
        if sent is msgspec.UNSET:
            continue
        stored, value = getattr(row, name), getattr(item.order, name)
        if name in {"amount", "refunded_amount", "base_amount"}:
            same = Decimal(stored) == value
        elif name in {"items", "metadata"} and value is not None and stored is not None:
            written = stored_items(value) if name == "items" else value
            same = is_same_json(encode(written), stored.encode())
        else:
            same = stored == value
        if not same:
            return False
    return True


async def _insert(
    connection: AsyncConnection, caller: Caller, orders: Mapping[int, OrderCreate], locked: LockedConsumers
) -> dict[int, Order]:
    if not orders:
        return {}
    consumer_ids = dict(enumerate(locked.ids[index] for index in orders))
    rows = new_rows(caller, list(orders.values()), consumer_ids)
    values = {"environment_id": caller.environment_id, "rows": encode(rows).decode()}
    stored = {row.id: row for row in await connection.execute(INSERT, values)}
    if len(stored) < len(rows):
        raise ValueTaken
    return {index: order_of(stored[row["id"]]) for index, row in zip(orders, rows, strict=True)}


async def _update(connection: AsyncConnection, caller: Caller, items: Mapping[int, _Item]) -> dict[int, Order]:
    if not items:
        return {}
    stored_rows = [item.row for item in items.values() if item.row]
    ids = [row.id for row in stored_rows]
    consumer_ids = dict(enumerate(row.consumer_id for row in stored_rows))
    rows = new_rows(caller, [item.order for item in items.values()], consumer_ids)
    for row, stored_row, item in zip(rows, stored_rows, items.values(), strict=True):
        row["id"] = stored_row.id
        # Unchanged JSON is written back as the database's text: numbers there may be longer than Python's floats.
        unchanged = [name for name in ("items", "metadata") if getattr(item.change, name) is msgspec.UNSET]
        row.update({name: raw(getattr(stored_row, name)) for name in unchanged})
    values = {"environment_id": caller.environment_id, "rows": encode(rows).decode(), "ids": ids}
    stored = {row.id: order_of(row) for row in await connection.execute(UPDATE, values)}
    return {index: stored[order_id] for index, order_id in zip(items, ids, strict=True)}
