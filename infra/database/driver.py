"""Statements run by the driver itself, because SQLAlchemy takes 0.1 ms of processor time for each.

The statements of the most frequent requests are run here (docs/decisions/0050-processor-time-of-requests.md). Errors
are handled as for other statements: the same exceptions, and the pool replaces a lost connection.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn

import sqlalchemy as sa
from psycopg import AsyncConnection as Driver
from psycopg import sql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.ext.asyncio import AsyncConnection

_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # partly typed
_BEGIN = sql.SQL("BEGIN; ")


async def fetch_all(
    connection: AsyncConnection, statement: sa.TextClause, values: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """Run a statement, and return its rows.

    Raises:
        DBAPIError: the statement failed.
    """
    driver = await _driver_of(connection)
    if not driver.autocommit and not connection.in_transaction():
        await connection.begin()  # behind a pooler, each transaction begins with the settings of a session
    try:
        cursor = await driver.execute(_text_of(statement).encode(), values)
        return await cursor.fetchall()
    except BaseException as error:  # noqa: BLE001 (SQLAlchemy also closes the connection of a cancelled request)
        await connection.run_sync(_raise, error)


async def begin(connection: AsyncConnection, query: sql.Composed) -> tuple[Any, ...]:
    """Begin a transaction, and return the row of its first query. Both take one round trip.

    Args:
        connection: with autocommit; otherwise the driver begins the transaction, with a round trip of its own.
        query: with its values as literals, because a message with several statements has no parameters.

    Raises:
        DBAPIError: the query failed.
    """
    await connection.begin()
    driver = await _driver_of(connection)
    try:
        cursor = await driver.execute(_BEGIN + query if driver.autocommit else query, prepare=False)
        await cursor.set_result(-1)
        [row] = await cursor.fetchall()
    except BaseException as error:  # noqa: BLE001 (as above)
        await connection.run_sync(_raise, error)
    return row


async def _driver_of(connection: AsyncConnection) -> Driver[tuple[Any, ...]]:
    driver: Any = (await connection.get_raw_connection()).driver_connection
    return driver  # type: ignore[no-any-return]  # SQLAlchemy knows no type of drivers


def _raise(connection: sa.Connection, error: BaseException) -> NoReturn:
    """Raise the error as SQLAlchemy does, after the events of the engine.

    SQLAlchemy has no public function for this.
    """
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001 (raised again)
        connection._handle_dbapi_exception(raised, None, None, None, None)  # noqa: SLF001


@cache
def _text_of(statement: sa.TextClause) -> str:
    """Return a statement with the placeholders of the driver."""
    return str(statement.compile(dialect=_DIALECT))
