"""What `include` puts on a single consumer, from PostgreSQL."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.audiences.schemas import AudienceId, AudienceType
from api.auth import Caller
from api.orders.schemas import Order
from api.orders.writes import newest
from infra.documents import Consumer

AUDIENCES = sa.text("""
    SELECT a.id, a.name, a.type FROM audience_members m JOIN audiences a ON a.id = m.audience_id
    WHERE m.environment_id = :environment_id AND m.consumer_id = :id AND a.deleted_at IS NULL
    ORDER BY a.name COLLATE "C", a.id""")
NEWEST_ORDERS = 50


class AudienceReference(msgspec.Struct):
    id: AudienceId
    name: str
    type: AudienceType


class ConsumerIncluding(Consumer):
    """A consumer with what `include` asked for: its audiences by name, its 50 newest orders."""

    audiences: list[AudienceReference] | msgspec.UnsetType = msgspec.UNSET
    orders: list[Order] | msgspec.UnsetType = msgspec.UNSET


async def included(connection: AsyncConnection, caller: Caller, consumer_id: str, include: Sequence[str]) -> bytes:
    """The further members of the consumer's JSON object, each with its leading comma."""
    parts = b""
    if "audiences" in include:
        rows = await connection.execute(AUDIENCES, {"environment_id": caller.environment_id, "id": consumer_id})
        parts += b',"audiences":' + msgspec.json.encode([AudienceReference(*row) for row in rows])
    if "orders" in include:
        orders = await newest(connection, caller, consumer_id, NEWEST_ORDERS)
        parts += b',"orders":' + msgspec.json.encode(orders)
    return parts
