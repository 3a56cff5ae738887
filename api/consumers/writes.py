"""The write path: consumers in PostgreSQL. The triggers of the data model do the rest (versions, outbox)."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, TypeAlias

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.answers import etag, is_match
from api.auth import Caller
from api.consumers.schemas import ConsumerChange, ConsumerChangeItem, NewConsumer
from api.errors import Fault, Placed, Problem, not_found, refuse
from infra.database.engine import OPAQUE_ENVIRONMENT_ID
from infra.ids import is_id, new_ids
from infra.index.documents import COLUMNS, ConsumerRow
from infra.merge_patch import merged

EMAIL_TAKEN, EXTERNAL_ID_TAKEN = "Email already exists", "External ID already exists"
Taken: TypeAlias = tuple[str | None, str | None, str | None]
"""What may be taken: the id of whose it is, an e-mail address and an external id."""
NOTHING: Taken = (None, None, None)
SETTABLE = ("email", "phone", "full_name", "metadata", "external_id")

# A value is taken by another consumer, or by an earlier item of the same request.
TAKEN = sa.text(f"""
    SELECT w.place,
        w.key IS NOT NULL AND (
            row_number() OVER (PARTITION BY w.key ORDER BY w.place) > 1
            OR EXISTS (SELECT FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID}
                       AND c.email_key = w.key COLLATE "C" AND c.id IS DISTINCT FROM w.id)) AS email,
        w.external_id IS NOT NULL AND (
            row_number() OVER (PARTITION BY w.external_id ORDER BY w.place) > 1
            OR EXISTS (SELECT FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID}
                       AND c.external_id = w.external_id AND c.id IS DISTINCT FROM w.id)) AS external_id
    FROM (SELECT place, id, lower(email COLLATE pg_c_utf8) AS key, external_id
          FROM unnest(CAST(:places AS int[]), CAST(:ids AS text[]), CAST(:emails AS text[]),
                      CAST(:external_ids AS text[])) AS g (place, id, email, external_id)) w""")
GIVEN = """unnest(CAST(:id AS text[]), CAST(:email AS text[]), CAST(:phone AS text[]), CAST(:full_name AS text[]),
        CAST(:metadata AS jsonb[]), CAST(:external_id AS text[]))
        AS w (id, email, phone, full_name, metadata, external_id)"""
# One moment for all of a batch, so that ids alone decide their order.
NOW = "date_trunc('milliseconds', now())"
# In one order of the unique values: otherwise batches that share some wait for each other, until one is aborted.
INSERT = sa.text(f"""
    INSERT INTO consumers AS c
        (environment_id, id, email, phone, full_name, metadata, external_id, created_at, updated_at)
    SELECT :environment_id, w.*, {NOW}, {NOW} FROM {GIVEN}
    ORDER BY lower(w.email COLLATE pg_c_utf8), w.external_id COLLATE "C" RETURNING {COLUMNS}""")
# By their ids, whatever the planner believes of the environment: no index has it plus nothing.
UPDATE = sa.text(f"""
    UPDATE consumers c SET email = w.email, phone = w.phone, full_name = w.full_name, metadata = w.metadata,
        external_id = w.external_id
    FROM {GIVEN} WHERE c.environment_id + 0 = :environment_id AND c.id = w.id RETURNING {COLUMNS}""")
GET = sa.text(f"SELECT {COLUMNS} FROM consumers c WHERE c.environment_id = :environment_id AND c.id = :id")
# In id order, as every write that touches consumers does: otherwise they wait for each other for ever.
LOCK = sa.text(f"""
    SELECT {COLUMNS} FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID} AND c.id = ANY(:ids)
    ORDER BY c.id FOR NO KEY UPDATE""")
LOCK_TO_DELETE = sa.text(f"{GET.text} FOR UPDATE")
DELETE = sa.text("DELETE FROM consumers WHERE environment_id = :environment_id AND id = :id")


async def create(
    connection: AsyncConnection,
    caller: Caller,
    new: Sequence[NewConsumer | None],
    early: Sequence[Fault],
    *,
    batch: bool,
    look: bool,
) -> list[ConsumerRow]:
    """Insert consumers, all or none, and answer them in their order.

    Args:
        connection: in the request's transaction.
        caller: whose consumers they are.
        new: the consumers; None where an item could not be read.
        early: what is wrong with them by themselves.
        batch: whether faults name their item.
        look: whether to look for values that are taken, before the unique indexes find them.

    Raises:
        Problem: 400 naming these faults, and every value that another consumer has.
        IntegrityError: such a value, if they were not looked for.
    """
    if look or early:
        given = [(None, item.email, item.external_id) if item else NOTHING for item in new]
        refuse(await _taken(connection, caller, given), early, batch=batch)
    values = [{name: getattr(item, name) for name in SETTABLE} for item in new]
    if not values:
        return []
    for row, consumer_id in zip(values, new_ids("cons_", len(new)), strict=True):
        row["id"] = consumer_id
    return await _store(connection, INSERT, caller, values)


async def get(connection: AsyncConnection, caller: Caller, consumer_id: str) -> ConsumerRow:
    """Read a consumer as it is now.

    Raises:
        Problem: 404 if the environment has no such consumer.
    """
    _require_id(consumer_id)
    found = await connection.execute(GET, {"environment_id": caller.environment_id, "id": consumer_id})
    return _found(found.one_or_none())


async def update(
    connection: AsyncConnection,
    caller: Caller,
    consumer_id: str,
    change: ConsumerChange,
    early: Sequence[Fault],
    if_match: set[str] | None,
) -> ConsumerRow:
    """Change a consumer.

    Raises:
        Problem: 404; 412 if it is not what `if_match` says; 400 for a value another consumer has.
    """
    _require_id(consumer_id)
    rows = await _lock(connection, caller, [consumer_id])
    row = _found(rows.get(consumer_id))
    if not early:  # what is wrong anyway is told so, whatever its condition (RFC 9110, 13.2.1)
        require_match(row, if_match)
    [changed] = await _update(connection, caller, [(row, change)], early, batch=False)
    return changed


async def update_batch(
    connection: AsyncConnection, caller: Caller, changes: Sequence[ConsumerChangeItem | None], early: Sequence[Fault]
) -> list[ConsumerRow]:
    """Change consumers, all or none, and answer them in the request's order.

    Raises:
        Problem: 404 naming every id the environment does not have; 400 for other faults, which then name those too.
    """
    ids = [change.id if change and isinstance(change.id, str) else None for change in changes]
    rows = await _lock(connection, caller, [given for given in ids if given is not None])
    faults, seen = list(early), set()
    for place, given in enumerate(ids):
        if given in seen:
            faults.append(Fault(f"[{place}].id", "Stands twice in this batch"))
        elif given is not None:
            seen.add(given)
    unknown = [
        Fault(f"[{place}].id", f"Unknown consumer {given[:64]}")
        for place, given in enumerate(ids)
        if given is not None and given not in rows
    ]
    if unknown and not faults:
        raise Problem(HTTPStatus.NOT_FOUND, "Consumer not found", details=unknown)
    pairs = [(rows.get(change.id) if change else None, change) for change in changes]
    return await _update(connection, caller, pairs, [*faults, *unknown], batch=True)


async def delete(
    connection: AsyncConnection, caller: Caller, consumer_id: str, if_match: set[str] | None
) -> ConsumerRow:
    """Delete a consumer with its memberships and orders, and answer what it was.

    Raises:
        Problem: 404; 412 if it is not what `if_match` says.
    """
    _require_id(consumer_id)
    values = {"environment_id": caller.environment_id, "id": consumer_id}
    row = _found((await connection.execute(LOCK_TO_DELETE, values)).one_or_none())
    require_match(row, if_match)
    await connection.execute(DELETE, values)
    return row


def require_match(row: ConsumerRow, if_match: set[str] | None) -> None:
    """Raise 412 unless the consumer is what an `If-Match` header says."""
    if not is_match(if_match, tag := etag(row.version)):
        raise Problem(HTTPStatus.PRECONDITION_FAILED, "Precondition failed", message=f"It is now {tag}")


async def _lock(connection: AsyncConnection, caller: Caller, ids: Sequence[str]) -> dict[str, ConsumerRow]:
    rows = await connection.execute(LOCK, {"environment_id": caller.environment_id, "ids": list(ids)})
    return {row[0]: ConsumerRow._make(row) for row in rows}


async def _update(
    connection: AsyncConnection,
    caller: Caller,
    changes: Sequence[tuple[ConsumerRow | None, ConsumerChange | None]],
    early: Sequence[Fault],
    *,
    batch: bool,
) -> list[ConsumerRow]:
    values: list[dict[str, Any]] = []
    faults: list[Placed] = []
    taken: list[Taken] = []
    for place, (row, change) in enumerate(changes):
        if row is None or change is None:
            taken.append(NOTHING)
            continue
        given = {name: value for name in SETTABLE if (value := getattr(change, name)) is not msgspec.UNSET}
        now = {name: getattr(row, name) for name in SETTABLE} | {"id": row.id}
        now["metadata"] = None if row.metadata is None else msgspec.Raw(row.metadata.encode())
        try:
            if given.get("metadata") is not None:
                given["metadata"] = merged(row.metadata, given["metadata"])
        except ValueError as error:
            faults.append(Placed(place, Fault("metadata", str(error))))
        values.append(now | given)
        # What an item does not change is taken from nobody, though another item may want it.
        new = {name: given[name] for name in ("email", "external_id") if given.get(name) not in {None, now[name]}}
        taken.append((row.id, new.get("email"), new.get("external_id")))
    refuse(faults + await _taken(connection, caller, taken), early, batch=batch)
    return await _store(connection, UPDATE, caller, values) if values else []


async def _taken(connection: AsyncConnection, caller: Caller, values: Sequence[Taken]) -> list[Placed]:
    ids, emails, external_ids = ([value[column] for value in values] for column in range(3))
    if not any(emails) and not any(external_ids):
        return []
    rows = await connection.execute(
        TAKEN,
        {
            "environment_id": caller.environment_id,
            "places": list(range(len(values))),
            "ids": ids,
            "emails": emails,
            "external_ids": external_ids,
        },
    )
    faults = []
    for place, email, external_id in sorted(map(tuple, rows)):
        if email:
            faults.append(Placed(place, Fault("email", EMAIL_TAKEN)))
        if external_id:
            faults.append(Placed(place, Fault("externalId", EXTERNAL_ID_TAKEN)))
    return faults


async def _store(
    connection: AsyncConnection, statement: sa.TextClause, caller: Caller, values: Sequence[dict[str, Any]]
) -> list[ConsumerRow]:
    columns: dict[str, Any] = {name: [value[name] for value in values] for name in ("id", *SETTABLE)}
    columns["metadata"] = [
        None if given is None else msgspec.json.encode(given).decode() for given in columns["metadata"]
    ]
    stored = await connection.execute(statement, columns | {"environment_id": caller.environment_id})
    rows = {row[0]: ConsumerRow._make(row) for row in stored}
    return [rows[consumer_id] for consumer_id in columns["id"]]


def _require_id(given: str) -> None:
    if not is_id("cons_", given):
        raise not_found("Consumer")


def _found(row: Sequence[Any] | None) -> ConsumerRow:
    if row is None:
        raise not_found("Consumer")
    return ConsumerRow._make(row)
