"""Pages of audiences, newest first. Read from PostgreSQL, so always current."""

from sqlalchemy.ext.asyncio import AsyncConnection

from api.audiences.rows import COLUMNS, VISIBLE, audience_of
from api.audiences.schemas import AudienceListParameters, AudiencePage
from api.auth import Caller
from api.cursors import Cursors
from api.keyset import newest_first

LONG_BYTES = "coalesce(octet_length(a.rules::text), 0) + coalesce(octet_length(a.metadata::text), 0)"
SELECT = f"SELECT {COLUMNS}, {LONG_BYTES} AS long_bytes FROM audiences a WHERE {VISIBLE}"


async def page(connection: AsyncConnection, caller: Caller, parameters: AudienceListParameters) -> AudiencePage:
    """Return a page.

    Raises:
        Problem: 400 for a damaged or expired cursor, or a cursor of another list.
    """
    rows, info = await newest_first(
        connection,
        SELECT,
        {"environment_id": caller.environment_id},
        ("a.created_at", "a.id"),
        parameters.paging(),
        Cursors(caller.seal, parameters.kind, parameters.list_parameters(), caller.environment_id),
    )
    return AudiencePage([audience_of(row) for row in rows], info)
