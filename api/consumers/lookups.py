"""Lookup of a consumer by a unique value. Read from PostgreSQL, so always current."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.consumers.schemas import LookupParameters
from api.error_codes import ErrorCode
from api.errors import no_match
from infra import emails
from infra.index.documents import COLUMNS, ConsumerRow

SELECT = f"SELECT {COLUMNS} FROM consumers c WHERE c.environment_id = :environment_id"
BY_EMAIL = sa.text(f"""{SELECT} AND c.email_key = lower(CAST(:value AS text) COLLATE pg_c_utf8) COLLATE "C" """)
BY_EXTERNAL_ID = sa.text(f"{SELECT} AND c.external_id = :value")


async def find(connection: AsyncConnection, caller: Caller, parameters: LookupParameters) -> ConsumerRow:
    """Read the consumer with a value.

    Raises:
        Problem: 404 if the environment has no such consumer.
    """
    statement = BY_EMAIL if parameters.external_id is None else BY_EXTERNAL_ID
    value = parameters.external_id
    if value is None:
        assert parameters.email, "either is given"
        value = emails.fold(parameters.email)
    row = (await connection.execute(statement, {"environment_id": caller.environment_id, "value": value})).one_or_none()
    if row is None:
        raise no_match("Consumer", ErrorCode.CONSUMER_NOT_FOUND)
    return ConsumerRow._make(row)
