"""Writes that decide item by item: upserts, and batches with `onError=continue` (contract.md §2)."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.batch_results import Outcome, Status, failed_items
from api.consumers.schemas import ConsumerCreate, ConsumerUpdate, ConsumerUpdateItem, MatchBy
from api.consumers.uniqueness import UNIQUE, find_failures, find_faults, key, release, stored_key
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
from api.reserved_values import RESERVED
from api.transactions import ValueTaken
from api.turns import Steps, Turns
from infra import emails
from infra.database.engine import OPAQUE_ENVIRONMENT_ID
from infra.ids import new_ids
from infra.index.documents import COLUMNS, ConsumerRow, consumer_json
from infra.merge_patch import merge
from infra.unique_values import Claim
from infra.wire import is_same_json


def _lock_by(column: str) -> sa.TextClause:
    """Return the statement that locks the consumers with some values.

    PostgreSQL compares a row again if it had to wait for the row, so each row has its value under the lock.
    """
    return sa.text(f"""
        SELECT {COLUMNS}, c.{column} FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID}
            AND c.{column} = ANY(CAST(:keys AS text[])) AND {RESERVED}
        ORDER BY c.id FOR NO KEY UPDATE""")


LOCK_BY: dict[MatchBy, sa.TextClause] = {"externalId": _lock_by("external_id"), "email": _lock_by("email_key")}


class Target(NamedTuple):
    """The row that an item changes, or None for a new consumer."""

    row: ConsumerRow | None = None
    fault: Fault | None = None
    """Forbids both."""
    repeat: Fault | None = None
    """The fault if an earlier item with the same target is stored."""


class _Values(NamedTuple):
    """The rows to store, by the index of the item."""

    new: dict[int, dict[str, Any]]
    changed: dict[int, dict[str, Any]]
    claims: dict[int, dict[str, Claim]]
    """By column, the unique values that change."""
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
    values = {"environment_id": caller.environment_id, "keys": list(keys.values()), "reserved": reserved_of(draft)}
    rows = {row[-1]: ConsumerRow._make(row[:-1]) for row in await connection.execute(LOCK_BY[by], values)}
    required = Fault(by, f"Required, because {by} names the consumer", ErrorCode.REQUIRED)
    repeated = Fault(by, "An earlier item has the same value", ErrorCode.DUPLICATE)
    targets, seen = dict[int, Target](), set[str]()
    for index in range(len(draft.items)):
        if index in keys:
            targets[index] = Target(rows.get(keys[index]), repeat=repeated if keys[index] in seen else None)
            seen.add(keys[index])
        elif index not in draft.item_faults:
            targets[index] = Target(fault=required)
    return await _write(connection, caller, draft, targets, turns, go_on=go_on, by=by)


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
    repeated = Fault("id", "Duplicate id in this batch", ErrorCode.DUPLICATE)
    targets, seen = dict[int, Target](), set[str]()
    for index, consumer_id in ids.items():
        if consumer_id not in rows:
            fault = Fault("id", f"Unknown consumer {consumer_id[:64]}", ErrorCode.CONSUMER_NOT_FOUND)
            targets[index] = Target(fault=fault)
        else:
            targets[index] = Target(rows[consumer_id], repeat=repeated if consumer_id in seen else None)
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
    by: MatchBy | None = None,
) -> list[Outcome]:
    """Store the items without faults; without `go_on`, all or none. `by` is the field that names new consumers."""
    found = [ItemFault(index, target.fault) for index, target in targets.items() if target.fault]
    if not go_on:
        found += [ItemFault(index, target.repeat) for index, target in targets.items() if target.repeat]
    refused = {item.index for item in found}
    values = await turns.run(_values(draft, {index: targets[index] for index in targets if index not in refused}))
    if go_on:
        rows = {index: row.id for index in values.claims if (row := targets[index].row)}
        failures = await find_failures(connection, caller, values.claims, rows)
        taken, released = failures.faults, failures.released
        for index in failures.repeats:
            repeat = targets[index].repeat
            assert repeat, "an earlier item has the same row"
            found.append(ItemFault(index, repeat))
    else:
        taken, released = await find_faults(connection, caller, _by_column(values.claims, len(draft.items)))
    if any(item.fault.existing_id and item.fault.field == by and not targets[item.index].row for item in taken):
        raise ValueTaken
    found += [*values.faults, *taken]
    if not go_on:
        draft.refuse(found)
    failed = failed_items(draft, found)
    await release(connection, caller, released)
    stored = await _store(connection, caller, draft, targets, values, failed)
    return [
        Outcome("failed", faults=failed[index])
        if index in failed
        else stored.get(index) or _outcome("unchanged", targets[index].row)
        for index in range(len(draft.items))
    ]


async def _store(
    connection: AsyncConnection,
    caller: Caller,
    draft: Draft[Any],
    targets: Mapping[int, Target],
    values: _Values,
    failed: Collection[int],
) -> dict[int, Outcome]:
    """Insert and change the rows of items that have not failed; return the outcomes by item."""
    new, changed = (
        {index: row for index, row in rows.items() if index not in failed} for rows in (values.new, values.changed)
    )
    inserted = await store(connection, INSERT, caller, list(new.values()), reserved=reserved_of(draft))
    with_metadata = [row["id"] for row in changed.values() if "metadata" in row]
    updated = await store(connection, UPDATE, caller, list(changed.values()), with_metadata=with_metadata)
    outcomes = {index: _outcome("created", row) for index, row in zip(new, inserted, strict=True)}
    for index, row in zip(changed, updated, strict=True):
        before = targets[index].row
        assert before, "a changed consumer"
        complete = row if "metadata" in changed[index] else row._replace(metadata=before.metadata)
        outcomes[index] = _outcome("updated", complete)
    return outcomes


def _by_column(claims: Mapping[int, Mapping[str, Claim]], size: int) -> dict[str, list[Claim]]:
    """Return the claims of all items by column. An item with a fault claims nothing."""
    nothing, nowhere = Claim(), dict[str, Claim]()
    return {
        unique.column: [claims.get(index, nowhere).get(unique.column, nothing) for index in range(size)]
        for unique in UNIQUE
    }


def _outcome(status: Status, row: ConsumerRow | None) -> Outcome:
    assert row, "only failed items have no row"
    return Outcome(status, row.id, consumer_json(row), version=row.version)


def _values(draft: Draft[Any], targets: Mapping[int, Target]) -> Steps[_Values]:
    """Merge the items into their rows, or into new rows. An item that changes nothing gets no row."""
    values = _Values({}, {}, {}, [])
    ids = iter(new_ids("cons_", sum(target.row is None for target in targets.values())))
    for index, (row, _, _) in targets.items():
        item = draft.items[index]
        assert item, "a target"
        try:
            changed = _changed(row, item)
        except ValueError as error:
            values.faults.append(ItemFault(index, Fault("metadata", str(error), ErrorCode.INVALID_METADATA)))
            continue
        values.claims[index] = {
            unique.column: Claim(row and row.id, row and stored_key(unique, row), key(unique, changed[unique.column]))
            for unique in UNIQUE
            if unique.column in changed
        }
        if row is None:
            values.new[index] = columns_of(dict.fromkeys(FIELDS) | changed) | {"id": next(ids)}
        elif changed:
            values.changed[index] = stored_values(row) | columns_of(changed)
        yield
    return values


def _changed(row: ConsumerRow | None, item: ConsumerUpdate | ConsumerCreate) -> dict[str, Any]:
    """Return the values of an item that are not stored already, metadata merged.

    Raises:
        ValueError: the metadata exceeds a limit.
    """
    changed = changed_values(row, item)
    if row:
        stored = {name: getattr(row, name) for name in FIELDS} | {"email": row.address}
        changed = {name: value for name, value in changed.items() if name == "metadata" or value != stored[name]}
    if isinstance(item, ConsumerUpdate) and changed.get("metadata") is not None:
        changed["metadata"] = merge(row and row.metadata, changed["metadata"])
    if row and "metadata" in changed and _is_stored(changed["metadata"], row.metadata):
        del changed["metadata"]
    return changed


def _is_stored(metadata: msgspec.Raw | None, stored: str | None) -> bool:
    if metadata is None or stored is None:
        return metadata is None and stored is None
    return is_same_json(metadata, stored.encode())
