"""Pages of audiences, newest first, from PostgreSQL."""

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from api.audiences.rows import COLUMNS, VISIBLE, audience_of
from api.audiences.schemas import AudiencePage
from api.auth import Caller
from api.keyset import newest_first
from api.pages import TwoWayParameters


async def page(connection: AsyncConnection, caller: Caller, asked: TwoWayParameters) -> AudiencePage:
    """One page.

    Raises:
        Problem: 400 for a cursor that is damaged, expired or of another list.
    """
    question = msgspec.json.encode(["audiences", caller.environment_id, asked.question()])
    rows, info = await newest_first(
        connection,
        f"SELECT {COLUMNS} FROM audiences a WHERE {VISIBLE}",
        {"environment_id": caller.environment_id},
        ("a.created_at", "a.id"),
        asked.window(),
        question,
    )
    return AudiencePage([audience_of(row) for row in rows], info)
