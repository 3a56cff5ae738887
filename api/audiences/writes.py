"""The write path: audiences and their stored members in PostgreSQL."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.audiences.rows import COLUMNS, VISIBLE, audience_of
from api.audiences.rules import problems, rules_of
from api.audiences.schemas import Audience, AudienceChange, Members, MembersChanged, NewAudience
from api.auth import Caller
from api.errors import Fault, Placed, invalid, not_found, refuse
from infra.database.engine import OPAQUE_ENVIRONMENT_ID
from infra.ids import is_id, new_ids
from infra.merge_patch import merged

INSERT = sa.text(f"""
    WITH moment AS MATERIALIZED (SELECT present() AS at)
    INSERT INTO audiences AS a (environment_id, id, name, description, metadata, type, rules, created_at, updated_at)
    SELECT :environment_id, :id, :name, :description, CAST(:metadata AS jsonb), :type, CAST(:rules AS jsonb), at, at
    FROM moment RETURNING {COLUMNS}""")
GET = sa.text(f"SELECT {COLUMNS} FROM audiences a WHERE {VISIBLE} AND a.id = :id")
# One change of an audience, or of its members, at a time.
LOCK = sa.text(f"{GET.text} FOR NO KEY UPDATE")
UPDATE = sa.text(f"""
    UPDATE audiences a SET name = :name, description = :description, metadata = CAST(:metadata AS jsonb),
        rules = CAST(:rules AS jsonb)
    WHERE {VISIBLE} AND a.id = :id RETURNING {COLUMNS}""")
# It is gone at once; the indexer clears its memberships, however many.
DELETE = sa.text(f"UPDATE audiences a SET deleted_at = present() WHERE {VISIBLE} AND a.id = :id")

LOCK_CONSUMERS = sa.text(f"""
    SELECT id FROM consumers WHERE environment_id = {OPAQUE_ENVIRONMENT_ID} AND id = ANY(:ids)
    ORDER BY id FOR NO KEY UPDATE""")
MEMBERS = sa.text("SELECT consumer_id FROM audience_members WHERE audience_id = :id")
ADD = sa.text("""
    INSERT INTO audience_members (environment_id, audience_id, consumer_id)
    SELECT :environment_id, :id, m.id FROM unnest(CAST(:ids AS text[])) AS m (id) ON CONFLICT DO NOTHING""")
REMOVE = sa.text("DELETE FROM audience_members WHERE audience_id = :id AND consumer_id = ANY(:ids)")


async def create(connection: AsyncConnection, caller: Caller, new: NewAudience) -> Audience:
    values = {
        "environment_id": caller.environment_id,
        "id": new_ids("aud_", 1)[0],
        "name": new.name,
        "description": new.description,
        "metadata": _json(new.metadata),
        "type": new.type,
        "rules": _json(new.all_rules()),
    }
    return audience_of((await connection.execute(INSERT, values)).one())


async def get(connection: AsyncConnection, caller: Caller, audience_id: str) -> Audience:
    """Read an audience.

    Raises:
        Problem: 404.
    """
    return audience_of(await _found(connection, GET, caller, audience_id))


async def update(connection: AsyncConnection, caller: Caller, audience_id: str, change: AudienceChange) -> Audience:
    """Change an audience.

    Raises:
        Problem: 404; 400 if it would change the type, or has rules that do not fit it.
    """
    row = await _found(connection, LOCK, caller, audience_id)
    given = {name: new for name, new in msgspec.structs.asdict(change).items() if new is not msgspec.UNSET}
    if text := given.pop("filter", None):
        given["rules"] = rules_of(text)
    faults = []
    if given.pop("type", row.type) != row.type:
        faults.append(Fault("type", "The type of an audience is fixed"))
    if "rules" in given:
        faults += problems(given["rules"], row.type)
        given["rules"] = _json(given["rules"])
    if given.get("metadata") is not None:
        try:
            given["metadata"] = _json(merged(row.metadata, given["metadata"]))
        except ValueError as error:
            faults.append(Fault("metadata", str(error)))
    refuse([Placed(0, fault) for fault in faults], batch=False)
    now = {name: getattr(row, name) for name in ("name", "description", "metadata", "rules")}
    values = now | given | {"environment_id": caller.environment_id, "id": audience_id}
    return audience_of((await connection.execute(UPDATE, values)).one())


async def delete(connection: AsyncConnection, caller: Caller, audience_id: str) -> Audience:
    """Delete an audience and answer what it was.

    Raises:
        Problem: 404.
    """
    row = await _found(connection, LOCK, caller, audience_id)
    await connection.execute(DELETE, {"environment_id": caller.environment_id, "id": audience_id})
    return audience_of(row)


async def add_members(
    connection: AsyncConnection, caller: Caller, audience_id: str, members: Members
) -> MembersChanged:
    """Add consumers; those who are members already do not count.

    Raises:
        Problem: 404; 400 on a dynamic audience, or naming the ids the environment does not have.
    """
    await _stored(connection, caller, audience_id)
    await _lock(connection, caller, members.consumer_ids)
    return MembersChanged(audience_id, added_count=await _add(connection, caller, audience_id, members.consumer_ids))


async def remove_members(
    connection: AsyncConnection, caller: Caller, audience_id: str, members: Members
) -> MembersChanged:
    """Remove consumers; those who are no members do not count.

    Raises:
        Problem: as `add_members`.
    """
    await _stored(connection, caller, audience_id)
    await _lock(connection, caller, members.consumer_ids)
    return MembersChanged(audience_id, removed_count=await _remove(connection, audience_id, members.consumer_ids))


async def replace_members(
    connection: AsyncConnection, caller: Caller, audience_id: str, members: Members
) -> MembersChanged:
    """Make these consumers the only members of a synced list.

    Raises:
        Problem: as `add_members`; 400 unless the audience is a synced list.
    """
    if await _stored(connection, caller, audience_id) != "SYNCED_LIST":
        raise invalid(error="Only the members of a SYNCED_LIST can be replaced")
    before = set((await connection.execute(MEMBERS, {"id": audience_id})).scalars())
    leaving = sorted(before.difference(members.consumer_ids))
    await _lock(connection, caller, members.consumer_ids, also=leaving)
    removed = await _remove(connection, audience_id, leaving)
    added = await _add(connection, caller, audience_id, members.consumer_ids)
    return MembersChanged(audience_id, added, removed)


async def _stored(connection: AsyncConnection, caller: Caller, audience_id: str) -> str:
    """The type of an audience whose members are stored; it is locked."""
    row = await _found(connection, LOCK, caller, audience_id)
    if row.type == "DYNAMIC":
        raise invalid(error="The members of a dynamic audience follow from its rules")
    return str(row.type)


async def _lock(connection: AsyncConnection, caller: Caller, ids: Sequence[str], also: Sequence[str] = ()) -> None:
    values = {"environment_id": caller.environment_id, "ids": [*ids, *also]}
    found = set((await connection.execute(LOCK_CONSUMERS, values)).scalars())
    unknown = [(place, given) for place, given in enumerate(ids) if given not in found]
    if unknown:
        raise invalid(*(Fault(f"consumerIds[{place}]", f"Unknown consumer {given[:64]}") for place, given in unknown))


async def _add(connection: AsyncConnection, caller: Caller, audience_id: str, ids: Sequence[str]) -> int:
    values = {"environment_id": caller.environment_id, "id": audience_id, "ids": list(ids)}
    return (await connection.execute(ADD, values)).rowcount


async def _remove(connection: AsyncConnection, audience_id: str, ids: Sequence[str]) -> int:
    return (await connection.execute(REMOVE, {"id": audience_id, "ids": list(ids)})).rowcount


async def _found(
    connection: AsyncConnection, statement: sa.TextClause, caller: Caller, audience_id: str
) -> sa.Row[Any]:
    values = {"environment_id": caller.environment_id, "id": audience_id}
    row = (await connection.execute(statement, values)).one_or_none() if is_id("aud_", audience_id) else None
    if row is None:
        raise not_found("Audience")
    return row


def _json(given: Any) -> str | None:
    return None if given is None else msgspec.json.encode(given).decode()
