"""Keyset pagination of the lists in PostgreSQL: newest first, ties by id."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.cursors import Cursors, Position
from api.errors import invalid_cursor
from api.pages import PageInfo, Paging

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Key = Annotated[str, msgspec.Meta(pattern=r"^[^\0]*\Z")]
MAX_PAGE_BYTES = 1024 * 1024
"""A page ends early, with at least one row, if the long columns of its rows have more bytes."""
BOUNDED = """
    SELECT * FROM (
        SELECT page.*, count(*) OVER () AS page_rows,
            sum(long_bytes) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) - long_bytes AS bytes_before
        FROM ({page}) page) bounded
    WHERE bytes_before < :max_bytes ORDER BY {order}"""


async def newest_first(
    connection: AsyncConnection,
    select: str,
    values: dict[str, Any],
    keys: tuple[str, str],
    paging: Paging,
    cursors: Cursors,
) -> tuple[Sequence[sa.Row[Any]], PageInfo]:
    """Return the rows of a page, and the page info.

    Args:
        connection: to the database.
        select: a SELECT statement that ends with conditions, with a column `long_bytes`, the bytes of the long columns.
        values: the statement's parameters.
        keys: the columns of the time and the id. Each row has attributes of these names, without the prefix.
        paging: the requested page.
        cursors: of the list.

    Raises:
        Problem: 400 for a damaged or expired cursor, or a cursor of another list.
    """
    moment, key = keys
    if position := paging.position(cursors, len(keys)):
        select += f" AND ({moment}, {key}) {'>' if paging.backward else '<'} (:position_time, :position_id)"
        bound = zip(("position_time", "position_id"), _convert(position.values, paging), strict=True)
        values = values | dict(bound)
    direction = "ASC" if paging.backward else "DESC"
    select += f" ORDER BY {moment} {direction}, {key} {direction} LIMIT :size"
    names = [name.rpartition(".")[2] for name in keys]
    order = ", ".join(f"{name} {direction}" for name in names)
    statement = sa.text(BOUNDED.format(page=select, order=order))
    values = values | {"size": paging.size + 1, "max_bytes": MAX_PAGE_BYTES}
    found = (await connection.execute(statement, values)).all()
    rows = found[: paging.size]
    has_more = bool(found) and found[0].page_rows > len(rows)
    if paging.backward:
        rows = rows[::-1]
    positions = [Position([getattr(row, names[0]).isoformat(), getattr(row, names[1])]) for row in rows]
    return rows, paging.page_info(cursors, positions, has_more=has_more)


def _convert(position: list[Any], paging: Paging) -> tuple[datetime, str]:
    try:
        return msgspec.convert(position, tuple[Moment, Key])
    except msgspec.ValidationError:
        raise invalid_cursor("before" if paging.backward else "after") from None
