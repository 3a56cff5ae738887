"""The write path: orders in PostgreSQL. Totals follow by trigger, in the same transaction."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.errors import Fault, Placed, not_found, refuse
from api.orders.rows import COLUMNS, encode, order_of
from api.orders.schemas import NewOrder, Order, OrderChange
from infra.database.engine import OPAQUE_ENVIRONMENT_ID
from infra.ids import is_id, new_ids
from infra.merge_patch import merged

TOTAL_MAX = Decimal(90_000_000_000_000)
COUNTING = frozenset({"CREATED", "COMPLETED"})

# One look-up a row, by the index of what is given.
FIND = sa.text(f"""
    SELECT w.place, CASE
        WHEN w.id IS NOT NULL THEN
            (SELECT c.id FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID} AND c.id = w.id)
        WHEN w.email IS NOT NULL THEN
            (SELECT c.id FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID}
             AND c.email_key = lower(w.email COLLATE pg_c_utf8) COLLATE "C")
        ELSE
            (SELECT c.id FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID}
             AND c.external_id = w.external_id) END AS id
    FROM unnest(CAST(:places AS int[]), CAST(:ids AS text[]), CAST(:emails AS text[]), CAST(:external_ids AS text[]))
        AS w (place, id, email, external_id)""")
# Always before any child row, and in id order: otherwise orders and deletes wait for each other for ever.
LOCK = sa.text(f"""
    SELECT id, total_order_value FROM consumers WHERE environment_id = {OPAQUE_ENVIRONMENT_ID} AND id = ANY(:ids)
    ORDER BY id FOR NO KEY UPDATE""")
TAKEN = sa.text(f"""
    SELECT external_id FROM orders
    WHERE environment_id = {OPAQUE_ENVIRONMENT_ID} AND external_id = ANY(:ids)
      AND id IS DISTINCT FROM CAST(:besides AS text)""")
GIVEN = """unnest(CAST(:id AS text[]), CAST(:consumer_id AS text[]), CAST(:external_id AS text[]),
        CAST(:status AS text[]), CAST(:amount AS numeric[]), CAST(:refunded_amount AS numeric[]),
        CAST(:currency_code AS text[]), CAST(:base_amount AS numeric[]), CAST(:items AS jsonb[]),
        CAST(:metadata AS jsonb[]), CAST(:placed_at AS timestamptz[]))
        AS w (id, consumer_id, external_id, status, amount, refunded_amount, currency_code, base_amount, items,
              metadata, placed_at)"""
# In one order of the unique values: otherwise batches that share some wait for each other, until one is aborted.
# All of a batch are made and placed at one moment, whatever that order.
INSERT = sa.text(f"""
    WITH moment AS MATERIALIZED (SELECT present() AS at)
    INSERT INTO orders AS o (environment_id, id, consumer_id, external_id, status, amount, refunded_amount,
        currency_code, base_amount, items, metadata, placed_at, created_at, updated_at)
    SELECT :environment_id, w.id, w.consumer_id, w.external_id, w.status, w.amount, w.refunded_amount,
        w.currency_code, w.base_amount, w.items, w.metadata, coalesce(w.placed_at, moment.at), moment.at, moment.at
    FROM {GIVEN} CROSS JOIN moment ORDER BY w.external_id COLLATE "C" RETURNING {COLUMNS}""")
GET = sa.text(f"SELECT {COLUMNS}, o.value FROM orders o WHERE o.environment_id = :environment_id AND o.id = :id")
LOCK_ORDER = sa.text(f"{GET.text} FOR UPDATE")
NEWEST = sa.text(f"""
    SELECT {COLUMNS} FROM orders o WHERE o.environment_id = :environment_id AND o.consumer_id = :consumer_id
    ORDER BY o.placed_at DESC, o.id DESC LIMIT :number""")
UPDATE = sa.text(f"""
    UPDATE orders o SET external_id = w.external_id, status = w.status, amount = w.amount,
        refunded_amount = w.refunded_amount, currency_code = w.currency_code, base_amount = w.base_amount,
        items = w.items, metadata = w.metadata, placed_at = w.placed_at
    FROM {GIVEN} WHERE o.environment_id = :environment_id AND o.id = w.id RETURNING {COLUMNS}""")
DELETE = sa.text("DELETE FROM orders WHERE environment_id = :environment_id AND id = :id")
PAST_MAXIMUM = f"Would take the consumer's total past {TOTAL_MAX}"


class Locked(NamedTuple):
    """The consumers of a request's orders, by the order's place; and the locked ones' totals, by id."""

    ids: dict[int, str]
    totals: dict[str, Decimal]


async def create(
    connection: AsyncConnection,
    caller: Caller,
    given: Sequence[NewOrder | None],
    early: Sequence[Fault],
    *,
    batch: bool,
    look: bool,
) -> list[Order]:
    """Insert orders, all or none, and answer them in their order.

    Args:
        connection: in the request's transaction.
        caller: whose orders they are.
        given: the orders; None where an item could not be read.
        early: what is wrong with them by themselves.
        batch: whether faults name their item.
        look: whether to look for external ids that are taken, before the unique index finds them.

    Raises:
        Problem: 400 naming these faults, and every order whose consumer is unknown, whose external id is taken, or
            that would take a consumer's total past 9·10¹³.
        IntegrityError: such an external id, if they were not looked for.
    """
    orders = {place: order for place, order in enumerate(given) if order}
    locked = await _lock(connection, caller, orders)
    faults = [
        Placed(place, Fault("consumer" if order.consumer_id is None else "consumerId", "Unknown consumer"))
        for place, order in orders.items()
        if place not in locked.ids and (order.consumer_id, order.consumer) != (None, None)
    ]
    faults += [] if early else _overflows(orders, locked)
    if look or early or faults:
        faults += await _taken(connection, caller, orders)
    refuse(faults, early, batch=batch)
    new = list(orders.values())
    if not new:
        return []
    values = _columns(caller, new, locked)
    rows = {row[0]: row for row in await connection.execute(INSERT, values)}
    return [order_of(rows[order_id]) for order_id in values["id"]]


async def _lock(connection: AsyncConnection, caller: Caller, new: Mapping[int, NewOrder]) -> Locked:
    environment = {"environment_id": caller.environment_id}
    found = await connection.execute(
        FIND,
        environment
        | {
            "places": list(new),
            "ids": [order.consumer_id for order in new.values()],
            "emails": [order.consumer.email if order.consumer else None for order in new.values()],
            "external_ids": [order.consumer.external_id if order.consumer else None for order in new.values()],
        },
    )
    ids = {row.place: row.id for row in found if row.id is not None}
    rows = await connection.execute(LOCK, environment | {"ids": list(set(ids.values()))})
    totals = {row.id: row.total_order_value for row in rows}
    # One that was deleted between the two statements is unknown.
    return Locked({place: consumer_id for place, consumer_id in ids.items() if consumer_id in totals}, totals)


async def _taken(
    connection: AsyncConnection, caller: Caller, new: Mapping[int, NewOrder], *, besides: str | None = None
) -> list[Placed]:
    given = [order.external_id for order in new.values() if order.external_id is not None]
    if not given:
        return []
    values = {"environment_id": caller.environment_id, "ids": given, "besides": besides}
    seen = set((await connection.execute(TAKEN, values)).scalars())
    faults = []
    for place, order in new.items():
        if order.external_id in seen:
            faults.append(Placed(place, Fault("externalId", "External ID already exists")))
        elif order.external_id is not None:
            seen.add(order.external_id)
    return faults


def _overflows(new: Mapping[int, NewOrder], locked: Locked) -> list[Placed]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, consumer_id in locked.ids.items():
        places[consumer_id].append(place)
    return [
        Placed(place, Fault("amount", PAST_MAXIMUM))
        for consumer_id, mine in places.items()
        if locked.totals[consumer_id] + sum(value(new[place]) for place in mine) > TOTAL_MAX
        for place in mine
    ]


async def get(connection: AsyncConnection, caller: Caller, order_id: str) -> Order:
    """Read an order.

    Raises:
        Problem: 404 if the environment has no such order.
    """
    return order_of(_found(await _one(connection, GET, caller, order_id)))


async def update(
    connection: AsyncConnection, caller: Caller, order_id: str, change: OrderChange, early: Sequence[Fault]
) -> Order:
    """Change an order; its consumer's totals follow.

    Raises:
        Problem: 404; 400 for the faults of `create`, or if it names another consumer.
    """
    row, total = await _lock_order(connection, caller, order_id)
    changed, faults = _changed(row, change, caller, early)
    faults += await _taken(connection, caller, {0: changed}, besides=order_id)
    if not early and total - row.value + value(changed) > TOTAL_MAX:
        faults.append(Placed(0, Fault("amount", PAST_MAXIMUM)))
    refuse(faults, early, batch=False)
    values = _columns(caller, [changed], Locked({0: row.consumer_id}, {})) | {"id": [order_id]}
    # Not by way of Python, whose numbers are shorter than the database's.
    values |= {name: [getattr(row, name)] for name in ("items", "metadata") if getattr(change, name) is msgspec.UNSET}
    return order_of((await connection.execute(UPDATE, values)).one())


async def delete(connection: AsyncConnection, caller: Caller, order_id: str) -> Order:
    """Delete an order and answer what it was; its consumer's totals follow.

    Raises:
        Problem: 404.
    """
    row, _ = await _lock_order(connection, caller, order_id)
    await connection.execute(DELETE, {"environment_id": caller.environment_id, "id": order_id})
    return order_of(row)


async def newest(connection: AsyncConnection, caller: Caller, consumer_id: str, number: int) -> list[Order]:
    """A consumer's newest orders."""
    values = {"environment_id": caller.environment_id, "consumer_id": consumer_id, "number": number}
    return [order_of(row) for row in await connection.execute(NEWEST, values)]


async def _lock_order(connection: AsyncConnection, caller: Caller, order_id: str) -> tuple[sa.Row[Any], Decimal]:
    """The order, and its consumer's total, both locked: the consumer first."""
    row = _found(await _one(connection, GET, caller, order_id))
    locked = {"environment_id": caller.environment_id, "ids": [row.consumer_id]}
    consumer = (await connection.execute(LOCK, locked)).one_or_none()
    row = _found(consumer and await _one(connection, LOCK_ORDER, caller, order_id))
    assert consumer is not None
    return row, consumer.total_order_value


async def _one(
    connection: AsyncConnection, statement: sa.TextClause, caller: Caller, order_id: str
) -> sa.Row[Any] | None:
    if not is_id("ord_", order_id):
        return None
    return (
        await connection.execute(statement, {"environment_id": caller.environment_id, "id": order_id})
    ).one_or_none()


def _found(row: sa.Row[Any] | None) -> sa.Row[Any]:
    if row is None:
        raise not_found("Order")
    return row


def _changed(
    row: sa.Row[Any], change: OrderChange, caller: Caller, early: Sequence[Fault]
) -> tuple[NewOrder, list[Placed]]:
    """The order as it is to be, and what is wrong with that (between its fields only if each by itself is right)."""
    given = {name: new for name, new in msgspec.structs.asdict(change).items() if new is not msgspec.UNSET}
    now = {name: getattr(row, name) for name in ("consumer_id", "external_id", "status", "currency_code", "placed_at")}
    now |= {name: Decimal(getattr(row, name)) for name in ("amount", "refunded_amount", "base_amount")}
    now |= {name: getattr(row, name) and msgspec.json.decode(getattr(row, name)) for name in ("items", "metadata")}
    faults = []
    if given.get("metadata") is not None:
        try:
            given["metadata"] = merged(row.metadata, given["metadata"])
        except ValueError as error:
            faults.append(Fault("metadata", str(error)))
    if given.get("consumer_id", row.consumer_id) != row.consumer_id:
        faults.append(Fault("consumerId", "An order stays with its consumer"))
    revalued = {"amount", "currency_code"} & {name for name in given if given[name] != now[name]}
    if revalued and "base_amount" not in given:
        now["base_amount"] = None
    changed = NewOrder(**now | given)
    faults += [] if early else changed.faults(caller)
    return changed, [Placed(0, fault) for fault in faults]


def value(order: NewOrder) -> Decimal:
    """What an order adds to its consumer's total (contract.md §3)."""
    base = order.amount if order.base_amount is None else order.base_amount
    if order.status not in COUNTING or not order.amount:
        return Decimal(0)
    with localcontext(prec=60) as context:
        context.rounding = ROUND_HALF_EVEN
        return (base * (order.amount - order.refunded_amount) / order.amount).quantize(Decimal("0.0001"))


def _columns(caller: Caller, new: Sequence[NewOrder], locked: Locked) -> dict[str, Any]:
    return {
        "environment_id": caller.environment_id,
        "id": new_ids("ord_", len(new)),
        "consumer_id": [locked.ids[place] for place in range(len(new))],
        "external_id": [order.external_id for order in new],
        "status": [order.status for order in new],
        "amount": [order.amount for order in new],
        "refunded_amount": [order.refunded_amount for order in new],
        "currency_code": [order.currency_code or caller.currency for order in new],
        "base_amount": [order.amount if order.base_amount is None else order.base_amount for order in new],
        "items": [_json(order.items) for order in new],
        "metadata": [_json(order.metadata) for order in new],
        "placed_at": [order.placed_at for order in new],
    }


def _json(given: Any) -> str | None:
    return None if given is None else encode(given).decode()
