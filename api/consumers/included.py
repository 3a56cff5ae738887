"""What is put on consumers besides their own fields: members of their JSON objects, each with its leading comma."""

from collections.abc import Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from api.audiences.schemas import AudienceReference
from api.auth import Caller
from api.consumers.matching import Match, explained
from api.consumers.reads import Hit
from api.consumers.schemas import SearchParameters
from api.orders.writes import newest

NEWEST_ORDERS = 50


def audiences(references: Sequence[AudienceReference]) -> bytes:
    return b',"audiences":' + msgspec.json.encode(references)


async def orders(connection: AsyncConnection, caller: Caller, consumer_id: str) -> bytes:
    return b',"orders":' + msgspec.json.encode(await newest(connection, caller, consumer_id, NEWEST_ORDERS))


def matches(hit: Hit, asked: SearchParameters, region: str | None) -> bytes:
    """How a row was found: by the fields that were asked for one by one, which are exact, and by `q`."""
    found = [Match(field, "exact", text) for field, text in asked.exact().items()]
    if asked.q is not None:
        found += explained(asked.q, region, hit.matched)
    return b',"matchedOn":' + msgspec.json.encode(found)
