"""The write path: audiences and their stored members in PostgreSQL."""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.audiences.rows import COLUMNS, VISIBLE, audience_of
from api.audiences.rules import rules_of_filter, type_faults
from api.audiences.schemas import Audience, AudienceCreate, AudienceUpdate, Members, MembersChanged
from api.auth import Caller
from api.error_codes import ErrorCode
from api.errors import Fault, not_found, not_possible, refuse
from infra.database.engine import OPAQUE_ENVIRONMENT_ID
from infra.ids import is_id, new_ids
from infra.merge_patch import merge

INSERT = sa.text(f"""
    WITH moment AS MATERIALIZED (SELECT present() AS at)
    INSERT INTO audiences AS a (environment_id, id, name, description, metadata, type, rules, created_at, updated_at)
    SELECT :environment_id, :id, :name, :description, CAST(:metadata AS jsonb), :type, CAST(:rules AS jsonb), at, at
    FROM moment RETURNING {COLUMNS}""")
GET = sa.text(f"SELECT {COLUMNS} FROM audiences a WHERE {VISIBLE} AND a.id = :id")
# The lock serialises changes of an audience and its members.
LOCK = sa.text(f"{GET.text} FOR NO KEY UPDATE")
UPDATE = sa.text(f"""
    UPDATE audiences a SET name = :name, description = :description, metadata = CAST(:metadata AS jsonb),
        rules = CAST(:rules AS jsonb)
    WHERE {VISIBLE} AND a.id = :id RETURNING {COLUMNS}""")
# The audience is invisible at once. The indexer removes the memberships later, because there may be very many.
DELETE = sa.text(f"UPDATE audiences a SET deleted_at = present() WHERE {VISIBLE} AND a.id = :id")

LOCK_CONSUMERS = sa.text(f"""
    SELECT id FROM consumers WHERE environment_id = {OPAQUE_ENVIRONMENT_ID} AND id = ANY(CAST(:ids AS text[]))
    ORDER BY id FOR NO KEY UPDATE""")
LOCK_RULES = sa.text("SELECT pg_advisory_xact_lock(:lock, :environment_id)").bindparams(lock=0x72756C65)
"""Serialises changes of an environment's rules, so that parallel requests cannot pass the limits together."""
STORED_RULES = sa.text(f"""
    SELECT count(*) AS audiences, coalesce(sum(octet_length(a.rules::text)), 0)::int AS bytes,
        octet_length(CAST(CAST(:rules AS jsonb) AS text)) AS new_bytes
    FROM audiences a WHERE {VISIBLE} AND a.type = 'DYNAMIC' AND a.id <> :id""")

# These find differences in the database: usually a few of thousands of ids.
NEW = sa.text("""
    SELECT DISTINCT sent.id FROM unnest(CAST(:ids AS text[])) AS sent (id)
    WHERE NOT EXISTS (SELECT FROM audience_members m WHERE m.audience_id = :id AND m.consumer_id = sent.id)""")
LEFT_OUT = sa.text("""
    SELECT consumer_id FROM audience_members
    WHERE audience_id = :id AND consumer_id NOT IN (SELECT unnest(CAST(:ids AS text[])))""")
MEMBERS_AMONG = sa.text("""
    SELECT consumer_id FROM audience_members WHERE audience_id = :id AND consumer_id = ANY(CAST(:ids AS text[]))""")
UNKNOWN = sa.text(f"""
    SELECT sent.id FROM unnest(CAST(:ids AS text[])) AS sent (id) WHERE NOT EXISTS (
        SELECT FROM consumers c WHERE c.environment_id = {OPAQUE_ENVIRONMENT_ID} AND c.id = sent.id)""")
ADD = sa.text("""
    INSERT INTO audience_members (environment_id, audience_id, consumer_id)
    SELECT :environment_id, :id, m.id FROM unnest(CAST(:ids AS text[])) AS m (id) ON CONFLICT DO NOTHING""")
REMOVE = sa.text("""
    DELETE FROM audience_members WHERE audience_id = :id AND consumer_id = ANY(CAST(:ids AS text[]))""")


class RuleLimits(NamedTuple):
    """What the dynamic audiences of an environment may have together. Each page with their names asks for all rules."""

    audiences: int
    bytes: int


async def create(connection: AsyncConnection, caller: Caller, limits: RuleLimits, new: AudienceCreate) -> Audience:
    """Insert an audience.

    Raises:
        Problem: 400 if the environment has too many dynamic audiences or rules.
    """
    values = {
        "environment_id": caller.environment_id,
        "id": new_ids("aud_", 1)[0],
        "name": new.name,
        "description": new.description,
        "metadata": _json(new.metadata),
        "type": new.type,
        "rules": _json(new.all_rules()),
    }
    await _check_rules(connection, limits, values)
    return audience_of((await connection.execute(INSERT, values)).one())


async def get(connection: AsyncConnection, caller: Caller, audience_id: str) -> Audience:
    """Read an audience.

    Raises:
        Problem: 404.
    """
    return audience_of(await _find(connection, GET, caller, audience_id))


async def update(
    connection: AsyncConnection, caller: Caller, limits: RuleLimits, audience_id: str, change: AudienceUpdate
) -> Audience:
    """Change an audience.

    Raises:
        Problem: 404; 400 if the type would change, the rules do not fit the type, or the environment has too many
            rules.
    """
    row = await _find(connection, LOCK, caller, audience_id)
    changes = {name: new for name, new in msgspec.structs.asdict(change).items() if new is not msgspec.UNSET}
    if filter_text := changes.pop("filter", None):
        changes["rules"] = rules_of_filter(filter_text)
    faults = []
    if changes.pop("type", row.type) != row.type:
        faults.append(Fault("type", "The type of an audience cannot be changed", ErrorCode.NOT_CHANGEABLE))
    if "rules" in changes:
        faults += type_faults(changes["rules"], row.type)
        changes["rules"] = _json(changes["rules"])
    if changes.get("metadata") is not None:
        try:
            changes["metadata"] = _json(merge(row.metadata, changes["metadata"]))
        except ValueError as error:
            faults.append(Fault("metadata", str(error), ErrorCode.INVALID_METADATA))
    refuse(faults)
    stored = {name: getattr(row, name) for name in ("name", "description", "metadata", "rules")}
    values = stored | changes | {"environment_id": caller.environment_id, "id": audience_id}
    if "rules" in changes:
        await _check_rules(connection, limits, values, row.rules)
    return audience_of((await connection.execute(UPDATE, values)).one())


async def delete(connection: AsyncConnection, caller: Caller, audience_id: str) -> Audience:
    """Delete an audience and return the deleted audience.

    Raises:
        Problem: 404.
    """
    row = await _find(connection, LOCK, caller, audience_id)
    await connection.execute(DELETE, {"environment_id": caller.environment_id, "id": audience_id})
    return audience_of(row)


async def add_members(
    connection: AsyncConnection, caller: Caller, audience_id: str, members: Members
) -> MembersChanged:
    """Add consumers. `addedCount` does not count existing members.

    Raises:
        Problem: 404; 400 for a dynamic audience; 400 with every unknown id.
    """
    await _lock_stored(connection, caller, audience_id)
    ids = _ids_of(members)
    # Stored members do not change, so they need no lock.
    new = await _select_ids(connection, NEW, id=audience_id, ids=ids)
    _refuse_unknown(members, ids, new - await _lock_consumers(connection, caller, new))
    return MembersChanged(audience_id, added_count=await _add(connection, caller, audience_id, new))


async def remove_members(
    connection: AsyncConnection, caller: Caller, audience_id: str, members: Members
) -> MembersChanged:
    """Remove consumers. `removedCount` counts only members.

    Raises:
        Problem: as `add_members`.
    """
    await _lock_stored(connection, caller, audience_id)
    ids = _ids_of(members)
    _refuse_unknown(members, ids, await _select_ids(connection, UNKNOWN, environment_id=caller.environment_id, ids=ids))
    leaving = await _select_ids(connection, MEMBERS_AMONG, id=audience_id, ids=ids)
    await _lock_consumers(connection, caller, leaving)
    return MembersChanged(audience_id, removed_count=await _remove(connection, audience_id, leaving))


async def replace_members(
    connection: AsyncConnection, caller: Caller, audience_id: str, members: Members
) -> MembersChanged:
    """Replace all members of a synced list.

    Raises:
        Problem: as `add_members`; 400 unless the audience is a synced list.
    """
    if await _lock_stored(connection, caller, audience_id) != "SYNCED_LIST":
        raise not_possible("Only the members of a SYNCED_LIST can be replaced")
    ids = _ids_of(members)
    new = await _select_ids(connection, NEW, id=audience_id, ids=ids)
    leaving = await _select_ids(connection, LEFT_OUT, id=audience_id, ids=ids)
    _refuse_unknown(members, ids, new - await _lock_consumers(connection, caller, new | leaving))
    removed = await _remove(connection, audience_id, leaving)
    added = await _add(connection, caller, audience_id, new)
    return MembersChanged(audience_id, added, removed)


async def _check_rules(
    connection: AsyncConnection, limits: RuleLimits, values: dict[str, Any], former: str | None = None
) -> None:
    """Raise 400 if the rules of an audience take the environment over a limit.

    Args:
        connection: of the transaction, which writes the rules afterwards.
        limits: of all rules.
        values: of the audience's row.
        former: the rules to be replaced; None for a new audience. Shorter rules are never refused.
    """
    if values["rules"] is None:
        return
    await connection.execute(LOCK_RULES, {"environment_id": values["environment_id"]})
    names = ("environment_id", "id", "rules")
    stored = (await connection.execute(STORED_RULES, {name: values[name] for name in names})).one()
    faults = []
    if former is None and stored.audiences >= limits.audiences:
        message = f"At most {limits.audiences} audiences of an environment can be DYNAMIC: delete another first"
        faults.append(Fault("type", message))
    total = stored.bytes + stored.new_bytes
    if total > limits.bytes and (former is None or stored.new_bytes > len(former.encode())):
        faults.append(
            Fault(
                "rules",
                f"The rules of all audiences would have {total} bytes, and at most {limits.bytes} are allowed: "
                "use fewer or shorter values, or delete another DYNAMIC audience",
            )
        )
    refuse(faults)


async def _lock_stored(connection: AsyncConnection, caller: Caller, audience_id: str) -> str:
    """Lock an audience with stored members, and return the type."""
    row = await _find(connection, LOCK, caller, audience_id)
    if row.type == "DYNAMIC":
        raise not_possible("The members of a DYNAMIC audience follow from its rules and cannot be set")
    return str(row.type)


def _ids_of(members: Members) -> list[str]:
    """Return the ids of a request. A text of another form is no id, and can be long."""
    return [each for each in members.consumer_ids if is_id("cons_", each)]


async def _lock_consumers(connection: AsyncConnection, caller: Caller, ids: Iterable[str]) -> set[str]:
    """Lock consumers, and return those that exist."""
    return await _select_ids(connection, LOCK_CONSUMERS, environment_id=caller.environment_id, ids=ids)


def _refuse_unknown(members: Members, ids: Collection[str], unknown: Collection[str]) -> None:
    """Raise 400 if a text of a request is not in `ids`, or in `unknown`."""
    if unknown or len(ids) < len(members.consumer_ids):
        refuse(
            Fault(f"consumerIds[{index}]", f"Unknown consumer {text[:64]}", ErrorCode.CONSUMER_NOT_FOUND)
            for index, text in enumerate(members.consumer_ids)
            if text in unknown or not is_id("cons_", text)
        )


async def _add(connection: AsyncConnection, caller: Caller, audience_id: str, ids: Iterable[str]) -> int:
    values = {"environment_id": caller.environment_id, "id": audience_id, "ids": _array(ids)}
    return (await connection.execute(ADD, values)).rowcount


async def _remove(connection: AsyncConnection, audience_id: str, ids: Iterable[str]) -> int:
    return (await connection.execute(REMOVE, {"id": audience_id, "ids": _array(ids)})).rowcount


async def _select_ids(
    connection: AsyncConnection, statement: sa.TextClause, *, ids: Iterable[str], **values: object
) -> set[str]:
    return set((await connection.execute(statement, values | {"ids": _array(ids)})).scalars())


def _array(ids: Iterable[str]) -> str:
    """Return PostgreSQL's text form of an array of ids, which need no quotes.

    The driver escapes each element of a list: 10,000 ids keep the event loop for 7 ms.
    """
    return f"{{{','.join(ids)}}}"


async def _find(connection: AsyncConnection, statement: sa.TextClause, caller: Caller, audience_id: str) -> sa.Row[Any]:
    values = {"environment_id": caller.environment_id, "id": audience_id}
    row = (await connection.execute(statement, values)).one_or_none() if is_id("aud_", audience_id) else None
    if row is None:
        raise not_found("Audience")
    return row


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
