"""The write path: consumers in PostgreSQL. The triggers of the data model do the rest (versions, outbox)."""

import re
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.consumers.schemas import NewConsumer
from api.errors import Fault, invalid, not_found
from infra.documents import COLUMNS, ConsumerRow
from infra.ids import new_ids

ID = re.compile(r"cons_[0-9A-Z]{26}")
TAKEN = sa.text("""
    SELECT EXISTS (SELECT FROM consumers WHERE environment_id = :environment_id
                   AND email_key = lower(:email COLLATE pg_c_utf8)),
           EXISTS (SELECT FROM consumers WHERE environment_id = :environment_id AND external_id = :external_id)""")
INSERT = sa.text(f"""
    INSERT INTO consumers AS c (id, environment_id, email, phone, full_name, metadata, external_id)
    VALUES (:id, :environment_id, :email, :phone, :full_name, CAST(:metadata AS jsonb), :external_id)
    RETURNING {COLUMNS}""")
GET = sa.text(f"SELECT {COLUMNS} FROM consumers c WHERE c.environment_id = :environment_id AND c.id = :id")


async def create(connection: AsyncConnection, caller: Caller, new: NewConsumer) -> ConsumerRow:
    """Insert a consumer.

    Raises:
        Problem: 400 if another consumer of the environment has its e-mail address or external id.
    """
    values = msgspec.structs.asdict(new) | {"environment_id": caller.environment_id}
    if new.email is not None or new.external_id is not None:
        refuse_taken(*(await connection.execute(TAKEN, values)).one())
    [values["id"]] = new_ids("cons_", 1)
    values["metadata"] = None if new.metadata is None else msgspec.json.encode(new.metadata).decode()
    return ConsumerRow(*(await connection.execute(INSERT, values)).one())


async def get(connection: AsyncConnection, caller: Caller, consumer_id: str) -> ConsumerRow:
    """Read a consumer as it is now.

    Raises:
        Problem: 404 if the environment has no such consumer.
    """
    if not ID.fullmatch(consumer_id):  # PostgreSQL would not even take all that a path may hold
        raise not_found("Consumer")
    found = await connection.execute(GET, {"environment_id": caller.environment_id, "id": consumer_id})
    row: Sequence[object] | None = found.one_or_none()
    if row is None:
        raise not_found("Consumer")
    return ConsumerRow._make(row)


def refuse_taken(email: bool, external_id: bool) -> None:  # noqa: FBT001 (two findings, in the query's order)
    """Raise the contract's 400 for a value another consumer has."""
    faults = []
    if email:
        faults.append(Fault("email", "Email already exists"))
    if external_id:
        faults.append(Fault("externalId", "External ID already exists"))
    if faults:
        raise invalid(*faults, error=faults[0].message)
