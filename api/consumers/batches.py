"""Writes that decide item by item: upserts, and batches with `onError=continue` (contract.md §2)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.batch_results import Outcome, Status
from api.consumers.schemas import ConsumerCreate, ConsumerUpdate, ConsumerUpdateItem, MatchBy
from api.consumers.uniqueness import UNIQUE, find_faults, key, release, stored_key
from api.consumers.writes import (
    FIELDS,
    INSERT,
    UPDATE,
    changed_values,
    columns_of,
    lock,
    reserved_of,
    store,
    stored_values,
)
from api.drafts import Draft
from api.error_codes import ErrorCode
from api.errors import Fault, ItemFault
from api.transactions import ValueTaken
from api.turns import Steps, Turns
from infra import emails
from infra.database.engine import OPAQUE_ENVIRONMENT_ID
from infra.ids import new_ids
from infra.index.documents import ConsumerRow, consumer_json
from infra.merge_patch import merge
from infra.unique_values import Claim
from infra.wire import decode

# A separate subquery for each item uses the index of the column.
FIND_BY: dict[MatchBy, sa.TextClause] = {
    "externalId": sa.text(f"""
        SELECT w.item, w.key, (SELECT c.id FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID}
                               AND c.external_id = w.key) AS id
        FROM unnest(CAST(:items AS int[]), CAST(:keys AS text[])) AS w (item, key)"""),
    "email": sa.text(f"""
        SELECT w.item, w.key, (SELECT c.id FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID}
                               AND c.email_key = w.key COLLATE "C") AS id
        FROM (SELECT item, lower(key COLLATE pg_c_utf8) AS key
              FROM unnest(CAST(:items AS int[]), CAST(:keys AS text[])) AS v (item, key)) w"""),
}


class Target(NamedTuple):
    """The row that an item changes, or None for a new consumer."""

    row: ConsumerRow | None = None
    faults: Sequence[Fault] = ()
    """Faults that forbid both."""


class _Values(NamedTuple):
    """The rows to store, by the index of the item."""

    new: dict[int, dict[str, Any]]
    changed: dict[int, dict[str, Any]]
    claims: dict[int, dict[str, Claim]]
    """The unique values by column."""
    faults: list[ItemFault]


async def upsert(
    connection: AsyncConnection, caller: Caller, draft: Draft[ConsumerUpdate], by: MatchBy, turns: Turns, *, go_on: bool
) -> list[Outcome]:
    """Change the consumer with an item's value, or create a consumer; return the outcomes in the order of the request.

    Args:
        connection: in a transaction.
        caller: the environment.
        draft: the items.
        by: the field that names an item's consumer.
        turns: for the long work of a large batch.
        go_on: store the valid items even if others have faults.

    Raises:
        Problem: 400 with all faults, unless `go_on`.
        ValueTaken: another request stored one of the values meanwhile; the next attempt finds the row.
    """
    column = "email" if by == "email" else "external_id"
    keys = {
        index: emails.fold(value) if by == "email" else value
        for index, item in enumerate(draft.items)
        if item and index not in draft.item_faults and isinstance(value := getattr(item, column), str)
    }
    owners = await _owners(connection, caller, draft, by, keys)
    targets, seen = dict[int, Target](), set[str]()
    for index in range(len(draft.items)):
        if index in owners:
            key, row = owners[index]
            repeated = [Fault(by, "An earlier item has the same value", ErrorCode.DUPLICATE)] if key in seen else []
            targets[index] = Target(row, repeated)
            seen.add(key)
        elif index not in draft.item_faults:
            fault = Fault(by, f"Required, because {by} names the consumer", ErrorCode.REQUIRED)
            targets[index] = Target(faults=[fault])
    return await _write(connection, caller, draft, targets, turns, go_on=go_on)


async def _owners(
    connection: AsyncConnection, caller: Caller, draft: Draft[Any], by: MatchBy, keys: Mapping[int, str]
) -> dict[int, tuple[str, ConsumerRow | None]]:
    """Lock the consumers with some values; return the compared value and the row of each item.

    Raises:
        ValueTaken: a consumer got another value before it was locked.
    """
    values = {"environment_id": caller.environment_id, "items": list(keys), "keys": list(keys.values())}
    found = (await connection.execute(FIND_BY[by], values)).all()
    rows = await lock(connection, caller, [row.id for row in found if row.id], draft)
    [unique] = [unique for unique in UNIQUE if unique.name == by]
    owners = {row.item: (keys[row.item], rows.get(row.id)) for row in found}
    for value, owner in owners.values():
        if owner and stored_key(unique, owner) not in {None, value}:
            raise ValueTaken
    return owners


async def create(
    connection: AsyncConnection, caller: Caller, draft: Draft[ConsumerCreate], turns: Turns
) -> list[Outcome]:
    """Insert the consumers without faults; return the outcomes in the order of the request."""
    targets = {index: Target() for index in range(len(draft.items)) if index not in draft.item_faults}
    return await _write(connection, caller, draft, targets, turns, go_on=True)


async def update(
    connection: AsyncConnection, caller: Caller, draft: Draft[ConsumerUpdateItem], turns: Turns
) -> list[Outcome]:
    """Change the consumers of items without faults; return the outcomes in the order of the request."""
    ids = {index: item.id for index, item in enumerate(draft.items) if item and index not in draft.item_faults}
    rows = await lock(connection, caller, list(ids.values()), draft)
    targets, seen = dict[int, Target](), set[str]()
    for index, consumer_id in ids.items():
        if consumer_id in seen:
            targets[index] = Target(faults=[Fault("id", "Duplicate id in this batch", ErrorCode.DUPLICATE)])
        elif consumer_id not in rows:
            fault = Fault("id", f"Unknown consumer {consumer_id[:64]}", ErrorCode.CONSUMER_NOT_FOUND)
            targets[index] = Target(faults=[fault])
        else:
            targets[index] = Target(rows[consumer_id])
        seen.add(consumer_id)
    return await _write(connection, caller, draft, targets, turns, go_on=True)


async def _write(
    connection: AsyncConnection,
    caller: Caller,
    draft: Draft[Any],
    targets: Mapping[int, Target],
    turns: Turns,
    *,
    go_on: bool,
) -> list[Outcome]:
    values = await turns.run(_values(draft, targets))
    found = [
        *(ItemFault(index, fault) for index, target in targets.items() for fault in target.faults),
        *values.faults,
    ]
    taken, released = await _taken(connection, caller, values.claims, go_on=go_on)
    found += taken
    if not go_on:
        draft.refuse(found)
    faults: dict[int, list[Fault]] = {index: list(listed.listed) for index, listed in draft.item_faults.items()}
    for item in found:
        faults.setdefault(item.index, []).append(item.fault)
    await release(connection, caller, released)
    new, changed = (
        {index: row for index, row in rows.items() if index not in faults} for rows in (values.new, values.changed)
    )
    inserted = await store(connection, INSERT, caller, list(new.values()), reserved=reserved_of(draft))
    with_metadata = [row["id"] for row in changed.values() if "metadata" in row]
    updated = await store(connection, UPDATE, caller, list(changed.values()), with_metadata=with_metadata)
    stored = {index: _outcome("created", row) for index, row in zip(new, inserted, strict=True)}
    for index, row in zip(changed, updated, strict=True):
        before = targets[index].row
        assert before, "a changed consumer"
        complete = row if row.id in with_metadata else row._replace(metadata=before.metadata)
        stored[index] = _outcome("updated", complete)
    return [
        Outcome("failed", faults=faults[index])
        if index in faults
        else stored.get(index) or _outcome("unchanged", targets[index].row)
        for index in range(len(draft.items))
    ]


async def _taken(
    connection: AsyncConnection, caller: Caller, claims: Mapping[int, Mapping[str, Claim]], *, go_on: bool
) -> tuple[list[ItemFault], dict[str, list[str]]]:
    """Return a fault for each value that is taken, and the rows that give up their values.

    With `go_on`, an item with a fault keeps its old values, so these are taken for other items.
    """
    faults, remaining = list[ItemFault](), dict(claims)
    while True:
        by_column = {unique.column: [of_item[unique.column] for of_item in remaining.values()] for unique in UNIQUE}
        found, released = await find_faults(connection, caller, by_column)
        indexes = list(remaining)
        faults += [ItemFault(indexes[item.index], item.fault) for item in found]
        if not found or not go_on:
            return faults, released
        for index in {indexes[item.index] for item in found}:
            del remaining[index]


def _outcome(status: Status, row: ConsumerRow | None) -> Outcome:
    assert row, "only failed items have no row"
    return Outcome(status, row.id, consumer_json(row), version=row.version)


def _values(draft: Draft[Any], targets: Mapping[int, Target]) -> Steps[_Values]:
    """Merge the items into their rows, or into new rows. An item that changes nothing gets no row."""
    values = _Values({}, {}, {}, [])
    ids = iter(new_ids("cons_", sum(target.row is None for target in targets.values())))
    for index, target in targets.items():
        if target.faults:
            continue
        row, item = target.row, draft.items[index]
        assert item, "a target"
        try:
            sent = changed_values(row, item)
            if isinstance(item, ConsumerUpdate) and sent.get("metadata") is not None:
                sent["metadata"] = merge(row and row.metadata, sent["metadata"])
        except ValueError as error:
            values.faults.append(ItemFault(index, Fault("metadata", str(error), ErrorCode.INVALID_METADATA)))
            continue
        changed = sent if row is None else {name: value for name, value in sent.items() if not _same(value, row, name)}
        if row is None:
            values.new[index] = columns_of(dict.fromkeys(FIELDS) | sent) | {"id": next(ids)}
        elif changed:
            values.changed[index] = stored_values(row) | columns_of(dict(changed))
        claims = dict[str, Claim]()
        for unique in UNIQUE:
            before = stored_key(unique, row) if row else None
            after = key(unique, changed[unique.column]) if unique.column in changed else before
            claims[unique.column] = Claim(row.id if row else None, before, after)
        values.claims[index] = claims
        yield
    return values


def _same(sent: Any, row: ConsumerRow, name: str) -> bool:
    """Return whether a value is stored already. Metadata is sent as JSON, and stored as text."""
    stored = row.address if name == "email" else getattr(row, name)
    if isinstance(sent, msgspec.Raw):
        same: bool = stored is not None and decode(sent) == decode(stored.encode())
        return same
    return bool(sent == stored)
