"""Pages of a list that PostgreSQL answers, by keyset: newest first, ties by id."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.errors import Fault, invalid
from api.pages import PageInfo, Window

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Key = Annotated[str, msgspec.Meta(pattern=r"^[^\0]*\Z")]


async def newest_first(
    connection: AsyncConnection,
    select: str,
    values: dict[str, Any],
    keys: tuple[str, str],
    window: Window,
    question: bytes,
) -> tuple[Sequence[sa.Row[Any]], PageInfo]:
    """The rows of one page, and what it says of itself.

    Args:
        connection: to the database.
        select: a statement that ends in its conditions.
        values: for the statement.
        keys: the columns of time and id; the rows have them under these names too.
        window: which page.
        question: identifies the list.

    Raises:
        Problem: 400 for a cursor that is damaged, expired or of another list.
    """
    moment, key = keys
    if place := window.place(question, len(keys)):
        select += f" AND ({moment}, {key}) {'>' if window.backward else '<'} (:place_time, :place_id)"
        values = values | dict(zip(("place_time", "place_id"), _place(place, window), strict=True))
    direction = "ASC" if window.backward else "DESC"
    select += f" ORDER BY {moment} {direction}, {key} {direction} LIMIT :size"
    rows = (await connection.execute(sa.text(select), values | {"size": window.size + 1})).all()
    more = len(rows) > window.size
    rows = rows[: window.size]
    if window.backward:
        rows = rows[::-1]
    names = [name.rpartition(".")[2] for name in keys]
    places = [[getattr(row, names[0]).isoformat(), getattr(row, names[1])] for row in rows]
    return rows, window.info(question, places, more=more)


def _place(given: list[Any], window: Window) -> tuple[datetime, str]:
    try:
        return msgspec.convert(given, tuple[Moment, Key])
    except msgspec.ValidationError:
        raise invalid(Fault("before" if window.backward else "after", "Invalid cursor")) from None
