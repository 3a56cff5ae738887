"""The write path: consumers in PostgreSQL. Triggers set the versions and add the outbox rows."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.answers import etags, is_match
from api.auth import Caller
from api.consumers.schemas import ConsumerCreate, ConsumerUpdate, ConsumerUpdateItem
from api.consumers.uniqueness import UNIQUE, find_faults, key, release, stored_key
from api.drafts import BatchDraft, Draft, ObjectDraft
from api.error_codes import ErrorCode
from api.errors import Fault, ItemFault, Problem, not_found
from api.reserved_values import RESERVED, reserved
from api.transactions import ValueTaken
from api.turns import Steps, Turns
from infra import emails
from infra.database import driver
from infra.database.engine import OPAQUE_ENVIRONMENT_ID
from infra.database.rows import select_list
from infra.fields import CONSUMER_FIELDS
from infra.ids import is_id, new_ids
from infra.index.documents import COLUMNS, ConsumerRow
from infra.merge_patch import merge
from infra.unique_values import Claim

FIELDS = (*(field.column for field in CONSUMER_FIELDS), "metadata")
SETTABLE = (*FIELDS, "email_as_sent")


class Changes(NamedTuple):
    """The changes of a request, item by item."""

    rows: list[dict[str, Any]]
    """The rows to store."""
    claims: dict[str, list[Claim]]
    """For each unique column, the claims of all items."""
    faults: list[ItemFault]


# PostgreSQL assigns the values to columns by name, and takes the types from the table.
WRITTEN = "json_populate_recordset(NULL::consumers, CAST(:rows AS json)) w"
# All consumers of a batch have the same time, so their ids alone decide their order.
NOW = "date_trunc('milliseconds', now())"
# Rows are inserted in the order of their unique values: two batches with the same values in different orders would
# deadlock, and PostgreSQL would abort a batch.
INSERT = sa.text(f"""
    INSERT INTO consumers AS c (environment_id, id, {", ".join(SETTABLE)}, created_at, updated_at)
    SELECT :environment_id, w.id, {", ".join(f"w.{column}" for column in SETTABLE)}, {NOW}, {NOW}
    FROM {WRITTEN} WHERE {RESERVED}
    ORDER BY lower(w.email COLLATE pg_c_utf8), w.external_id COLLATE "C" ON CONFLICT DO NOTHING RETURNING {COLUMNS}""")
_HAS_METADATA = "c.id = ANY(CAST(:with_metadata AS text[]))"
_CHANGED = select_list(ConsumerRow._fields, "c", metadata=f"CASE WHEN {_HAS_METADATA} THEN c.metadata::text END")
# `+ 0` keeps the planner from an index on the environment alone: rows must be found by their ids, even if the
# environment is empty according to the statistics. The list of ids tells the planner how many rows there are.
# Metadata that does not change is neither sent nor stored again nor returned, because it may have 16 KiB.
UPDATE = sa.text(f"""
    UPDATE consumers c SET {", ".join(f"{column} = w.{column}" for column in SETTABLE if column != "metadata")},
        metadata = CASE WHEN {_HAS_METADATA} THEN w.metadata ELSE c.metadata END
    FROM {WRITTEN} WHERE c.environment_id + 0 = :environment_id AND c.id = w.id AND c.id = ANY(:ids)
    RETURNING {_CHANGED}""")
GET = sa.text(f"SELECT {COLUMNS} FROM consumers c WHERE c.environment_id = :environment_id AND c.id = :id")
# Every write locks consumers in the order of their ids: otherwise two writes could deadlock.
LOCK = sa.text(f"""
    SELECT {COLUMNS} FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID} AND c.id = ANY(:ids)
        AND {RESERVED}
    ORDER BY c.id FOR NO KEY UPDATE""")
LOCK_TO_DELETE = sa.text(f"{GET.text} FOR UPDATE")
DELETE = sa.text("DELETE FROM consumers WHERE environment_id = :environment_id AND id = :id")


async def create(connection: AsyncConnection, caller: Caller, draft: Draft[ConsumerCreate]) -> list[ConsumerRow]:
    """Insert consumers, all or none; return the rows in the order of the request.

    Raises:
        Problem: 400 if the draft has schema faults; names every taken value as well.
        ValueTaken: a value is taken; `explain_conflict` names all such values (`api/transactions.py` has the reason for
            this order).
    """
    if draft.faults:
        await explain_conflict(connection, caller, draft)
    values = [columns_of({name: getattr(item, name) for name in FIELDS}) for item in draft.items]
    for row, consumer_id in zip(values, new_ids("cons_", len(values)), strict=True):
        row["id"] = consumer_id
    return await store(connection, INSERT, caller, values, reserved=reserved_of(draft))


async def explain_conflict(connection: AsyncConnection, caller: Caller, draft: Draft[ConsumerCreate]) -> None:
    """Raise 400 with the schema faults and every taken value; return if there are none."""
    claims = {
        unique.column: [
            Claim(after=key(unique, getattr(item, unique.column)) if item else None) for item in draft.items
        ]
        for unique in UNIQUE
    }
    faults, _ = await find_faults(connection, caller, claims)
    draft.refuse(faults)


async def get(connection: AsyncConnection, caller: Caller, consumer_id: str) -> ConsumerRow:
    """Read a consumer.

    Raises:
        Problem: 404 if the environment has no such consumer.
    """
    _require_id(consumer_id)
    rows = await driver.fetch_all(connection, GET, {"environment_id": caller.environment_id, "id": consumer_id})
    return _row_or_404(rows[0] if rows else None)


async def update(
    connection: AsyncConnection,
    caller: Caller,
    consumer_id: str,
    draft: ObjectDraft[ConsumerUpdate],
    if_match: set[str] | None,
    turns: Turns,
) -> ConsumerRow:
    """Change a consumer.

    Raises:
        Problem: 404; 412 if the consumer's version does not match `if_match`; 400 for schema faults and taken
            values.
    """
    _require_id(consumer_id)
    row = _row_or_404((await lock(connection, caller, [consumer_id], draft)).get(consumer_id))
    if not draft.faults:  # preconditions apply only to otherwise successful requests (RFC 9110, 13.2.1)
        require_match(caller, row, if_match)
    [changed] = await _update(connection, caller, draft, [row], [], turns)
    return changed


async def update_batch(
    connection: AsyncConnection, caller: Caller, draft: BatchDraft[ConsumerUpdateItem], turns: Turns
) -> list[ConsumerRow]:
    """Change consumers, all or none; return the rows in the order of the request.

    Raises:
        Problem: 404 with every unknown id; 400 for further faults, together with the unknown ids.
    """
    # A faulty id is UNSET.
    ids = [change.id if change and isinstance(change.id, str) else None for change in draft.items]
    rows = await lock(connection, caller, [consumer_id for consumer_id in ids if consumer_id is not None], draft)
    duplicates, unknown = list[ItemFault](), list[ItemFault]()
    seen = set[str]()
    for index, consumer_id in enumerate(ids):
        if consumer_id is None:
            continue
        if consumer_id in seen:
            duplicates.append(ItemFault(index, Fault("id", "Duplicate id in this batch", ErrorCode.DUPLICATE)))
        if consumer_id not in rows:
            unknown.append(
                ItemFault(index, Fault("id", f"Unknown consumer {consumer_id[:64]}", ErrorCode.CONSUMER_NOT_FOUND))
            )
        seen.add(consumer_id)
    if unknown and not duplicates and not draft.faults:
        details = [item.in_batch() for item in unknown]
        code = ErrorCode.CONSUMER_NOT_FOUND
        raise Problem(HTTPStatus.NOT_FOUND, "Consumer not found", code=code, details=details)
    ordered = [rows.get(consumer_id) if consumer_id else None for consumer_id in ids]
    return await _update(connection, caller, draft, ordered, [*duplicates, *unknown], turns)


async def delete(
    connection: AsyncConnection, caller: Caller, consumer_id: str, if_match: set[str] | None
) -> ConsumerRow:
    """Delete a consumer with memberships and orders, and return the deleted row.

    Raises:
        Problem: 404; 412 if the consumer's version does not match `if_match`.
    """
    _require_id(consumer_id)
    values = {"environment_id": caller.environment_id, "id": consumer_id}
    row = _row_or_404((await connection.execute(LOCK_TO_DELETE, values)).one_or_none())
    require_match(caller, row, if_match)
    await connection.execute(DELETE, values)
    return row


def require_match(caller: Caller, row: ConsumerRow, if_match: set[str] | None) -> None:
    """Raise 412 unless the entity tags of an `If-Match` header allow a write of this row."""
    if if_match is None:
        return
    current = etags(caller.seal, row.id, row.version)
    if not is_match(if_match, current):
        message = f"The current ETag is {current[0]}: read the consumer again, and send the ETag with its quotes"
        raise Problem(HTTPStatus.PRECONDITION_FAILED, "Precondition failed", message=message)


async def lock(
    connection: AsyncConnection, caller: Caller, ids: Sequence[str], draft: Draft[Any]
) -> dict[str, ConsumerRow]:
    """Lock consumers, and the unique values of the draft."""
    values = {"environment_id": caller.environment_id, "ids": list(ids), "reserved": reserved_of(draft)}
    rows = await driver.fetch_all(connection, LOCK, values)
    return {row[0]: ConsumerRow._make(row) for row in rows}


async def _update(
    connection: AsyncConnection,
    caller: Caller,
    draft: Draft[Any],
    rows: Sequence[ConsumerRow | None],
    faults: Sequence[ItemFault],
    turns: Turns,
) -> list[ConsumerRow]:
    """Change the rows as the items of the draft say, unless there are faults. An unknown id has None for a row."""
    changes = await turns.run(_changes(draft, rows))
    taken, released = await find_faults(connection, caller, changes.claims)
    draft.refuse([*faults, *changes.faults, *taken])
    await release(connection, caller, released)
    with_metadata = {row["id"] for row in changes.rows if "metadata" in row}
    stored = await store(connection, UPDATE, caller, changes.rows, with_metadata=list(with_metadata))
    return [
        row if row.id in with_metadata or before is None else row._replace(metadata=before.metadata)
        for row, before in zip(stored, rows, strict=True)
    ]


def _changes(draft: Draft[Any], rows: Sequence[ConsumerRow | None]) -> Steps[Changes]:
    """Merge the items of the draft into the rows."""
    changes = Changes([], {unique.column: [] for unique in UNIQUE}, [])
    for index, (row, change) in enumerate(zip(rows, draft.items, strict=True)):
        if row is None or change is None:
            for claims in changes.claims.values():
                claims.append(Claim())
            continue
        changed = changed_values(row, change)
        try:
            if changed.get("metadata") is not None:
                changed["metadata"] = merge(row.metadata, changed["metadata"])
        except ValueError as error:
            changes.faults.append(ItemFault(index, Fault("metadata", str(error), ErrorCode.INVALID_METADATA)))
        changes.rows.append(stored_values(row) | columns_of(changed))
        for unique in UNIQUE:
            before = stored_key(unique, row)
            after = key(unique, changed[unique.column]) if unique.column in changed else before
            changes.claims[unique.column].append(Claim(row.id, before, after))
        yield
    return changes


def stored_values(row: ConsumerRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in SETTABLE if name != "metadata"} | {"id": row.id}


def changed_values(row: ConsumerRow | None, change: ConsumerUpdate | ConsumerCreate) -> dict[str, Any]:
    """Return the values of a change, without an e-mail address that stays the same.

    An address of an earlier release may be stored under another key than its own, and may then keep it.
    """
    values = {name: value for name in FIELDS if (value := getattr(change, name)) is not msgspec.UNSET}
    if values.get("email") is not None and row and values["email"] == row.address:
        del values["email"]
    return values


def columns_of(values: dict[str, Any]) -> dict[str, Any]:
    """Put the values of fields into the columns of `consumers`."""
    if "email" in values:
        values["email"], values["email_as_sent"] = emails.columns(values["email"])
    return values


async def store(
    connection: AsyncConnection,
    statement: sa.TextClause,
    caller: Caller,
    values: Sequence[dict[str, Any]],
    **others: object,
) -> list[ConsumerRow]:
    """Insert or update rows; return the rows in the order of `values`.

    Args:
        connection: of the transaction.
        statement: `INSERT` or `UPDATE`.
        caller: of the request.
        values: the rows to store, each with an id.
        others: further parameters of the statement.

    Raises:
        ValueTaken: an insert skipped a row. The caller must roll back.
    """
    if not values:
        return []
    ids = [value["id"] for value in values]
    parameters = {"environment_id": caller.environment_id, "rows": msgspec.json.encode(values).decode(), "ids": ids}
    stored = await driver.fetch_all(connection, statement, parameters | others)
    rows = {row[0]: ConsumerRow._make(row) for row in stored}
    if len(rows) < len(ids):
        raise ValueTaken
    return [rows[consumer_id] for consumer_id in ids]


def reserved_of(draft: Draft[Any]) -> list[str]:
    """Return the unique values of a draft, for `RESERVED`."""
    items = [item for item in draft.items if item]
    keys = [emails.fold(item.email) for item in items if isinstance(item.email, str)]
    return reserved([*keys, *(item.external_id for item in items)])


def _require_id(consumer_id: str) -> None:
    if not is_id("cons_", consumer_id):
        raise not_found("Consumer")


def _row_or_404(row: Sequence[Any] | None) -> ConsumerRow:
    if row is None:
        raise not_found("Consumer")
    return ConsumerRow._make(row)
