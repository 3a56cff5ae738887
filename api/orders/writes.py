"""The write path: orders in PostgreSQL. Totals follow by trigger, in the same transaction."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.errors import Fault, invalid
from api.orders.schemas import Item, NewOrder, Order
from infra.documents import time
from infra.ids import new_ids

TOTAL_MAX = Decimal(90_000_000_000_000)
COUNTING = frozenset({"CREATED", "COMPLETED"})
COLUMNS = """id, consumer_id, external_id, status, amount::text, refunded_amount::text, currency_code,
    base_amount::text, items::text, metadata::text, placed_at, created_at, updated_at"""

FIND = sa.text("""
    SELECT w.place, c.id FROM unnest(CAST(:places AS int[]), CAST(:ids AS text[])) AS w (place, id)
    JOIN consumers c ON c.environment_id = :environment_id AND c.id = w.id
    UNION ALL
    SELECT w.place, c.id FROM unnest(CAST(:places AS int[]), CAST(:emails AS text[])) AS w (place, email)
    JOIN consumers c ON c.environment_id = :environment_id AND c.email_key = lower(w.email COLLATE pg_c_utf8)
    UNION ALL
    SELECT w.place, c.id FROM unnest(CAST(:places AS int[]), CAST(:external_ids AS text[])) AS w (place, external_id)
    JOIN consumers c ON c.environment_id = :environment_id AND c.external_id = w.external_id""")
# Always before any child row, and in id order: otherwise orders and deletes wait for each other for ever.
LOCK = sa.text("""
    SELECT id, total_order_value FROM consumers WHERE environment_id = :environment_id AND id = ANY(:ids)
    ORDER BY id FOR NO KEY UPDATE""")
TAKEN = sa.text("SELECT external_id FROM orders WHERE environment_id = :environment_id AND external_id = ANY(:ids)")
INSERT = sa.text(f"""
    INSERT INTO orders (environment_id, id, consumer_id, external_id, status, amount, refunded_amount, currency_code,
        base_amount, items, metadata, placed_at)
    SELECT :environment_id, o.id, o.consumer_id, o.external_id, o.status, o.amount, o.refunded_amount,
        o.currency_code, o.base_amount, o.items, o.metadata, coalesce(o.placed_at, present())
    FROM unnest(CAST(:id AS text[]), CAST(:consumer_id AS text[]), CAST(:external_id AS text[]),
        CAST(:status AS text[]), CAST(:amount AS numeric[]), CAST(:refunded_amount AS numeric[]),
        CAST(:currency_code AS text[]), CAST(:base_amount AS numeric[]), CAST(:items AS jsonb[]),
        CAST(:metadata AS jsonb[]), CAST(:placed_at AS timestamptz[]))
        AS o (id, consumer_id, external_id, status, amount, refunded_amount, currency_code, base_amount, items,
              metadata, placed_at)
    RETURNING {COLUMNS}""")

_encode = msgspec.json.Encoder(decimal_format="string").encode
# jsonb keeps no order of keys: read back into the type, they stand in the contract's.
_items = msgspec.json.Decoder(list[Item]).decode


class Locked(NamedTuple):
    """The consumers of a request's orders, by the order's place; and the locked ones' totals, by id."""

    ids: dict[int, str]
    totals: dict[str, Decimal]


async def create(connection: AsyncConnection, caller: Caller, new: Sequence[NewOrder], *, batch: bool) -> list[Order]:
    """Insert orders, all or none, and answer them in their order.

    Raises:
        Problem: 400 naming every order whose consumer is unknown, whose external id is taken, or that would take a
            consumer's total past 9·10¹³.
    """
    if not new:
        return []
    locked = await _lock(connection, caller, new)
    faults = [
        (place, Fault("consumer" if order.consumer_id is None else "consumerId", "Unknown consumer"))
        for place, order in enumerate(new)
        if place not in locked.ids
    ]
    faults += await _taken(connection, caller, new)
    faults += _overflows(new, locked)
    if faults:
        named = [Fault(f"[{place}].{fault.field}" if batch else fault.field, fault.message) for place, fault in faults]
        sentences = {fault.message for fault in named}
        taken = sentences == {"External ID already exists"}
        raise invalid(*named, error=sentences.pop() if taken else "Validation failed")
    values = _columns(caller, new, locked)
    rows = {row[0]: row for row in await connection.execute(INSERT, values)}
    return [_order(rows[order_id]) for order_id in values["id"]]


async def _lock(connection: AsyncConnection, caller: Caller, new: Sequence[NewOrder]) -> Locked:
    environment = {"environment_id": caller.environment_id}
    found = await connection.execute(
        FIND,
        environment
        | {
            "places": list(range(len(new))),
            "ids": [order.consumer_id for order in new],
            "emails": [order.consumer.email if order.consumer else None for order in new],
            "external_ids": [order.consumer.external_id if order.consumer else None for order in new],
        },
    )
    ids = {row.place: row.id for row in found}
    rows = await connection.execute(LOCK, environment | {"ids": list(set(ids.values()))})
    totals = {row.id: row.total_order_value for row in rows}
    # One that was deleted between the two statements is unknown.
    return Locked({place: consumer_id for place, consumer_id in ids.items() if consumer_id in totals}, totals)


async def _taken(connection: AsyncConnection, caller: Caller, new: Sequence[NewOrder]) -> list[tuple[int, Fault]]:
    given = [order.external_id for order in new if order.external_id is not None]
    if not given:
        return []
    seen = set((await connection.execute(TAKEN, {"environment_id": caller.environment_id, "ids": given})).scalars())
    faults = []
    for place, order in enumerate(new):
        if order.external_id in seen:
            faults.append((place, Fault("externalId", "External ID already exists")))
        elif order.external_id is not None:
            seen.add(order.external_id)
    return faults


def _overflows(new: Sequence[NewOrder], locked: Locked) -> list[tuple[int, Fault]]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, consumer_id in locked.ids.items():
        places[consumer_id].append(place)
    return [
        (place, Fault("amount", f"Would take the consumer's total past {TOTAL_MAX}"))
        for consumer_id, mine in places.items()
        if locked.totals[consumer_id] + sum(value(new[place]) for place in mine) > TOTAL_MAX
        for place in mine
    ]


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
    return None if given is None else _encode(given).decode()


def _order(row: sa.Row[Any]) -> Order:
    return Order(
        id=row.id,
        consumer_id=row.consumer_id,
        external_id=row.external_id,
        status=row.status,
        amount=row.amount,
        refunded_amount=row.refunded_amount,
        currency_code=row.currency_code,
        base_amount=row.base_amount,
        items=row.items and msgspec.Raw(_encode(_items(row.items))),
        metadata=row.metadata and msgspec.Raw(row.metadata.encode()),
        placed_at=time(row.placed_at),
        created_at=time(row.created_at),
        updated_at=time(row.updated_at),
    )
