"""Sessions of PostgreSQL behind a pooler, such as PgBouncer.

The service sets options of its sessions, holds advisory locks and copies rows, so a connection needs a session of its
own. A pooler may drop the options at the start of a connection; they are set again. A pooler in transaction mode gives
each transaction to another session, so it is refused, except for the requests of the API (`DATABASE_SESSION_URL`).
"""

import select
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.pq.abc import PGconn
from sqlalchemy import event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry

from infra.settings import SettingsError

ATTEMPTS = 3
ANSWER_MS = 1000
CONNECT_SECONDS = 5

USE_SESSIONS = "set DATABASE_SESSION_URL to the address of PostgreSQL itself, or use the session mode of the pooler"
TRANSACTION_MODE = (
    "DATABASE_URL or DATABASE_SESSION_URL leads to a pooler in transaction mode, such as PgBouncer with "
    f"pool_mode=transaction, where a connection has no session of its own: {USE_SESSIONS}"
)
OPTIONS_REFUSED = (
    "DATABASE_URL or DATABASE_SESSION_URL leads to a pooler that refuses the options of a connection: "
    f"{USE_SESSIONS}, with `options` in ignore_startup_parameters"
)
REFUSAL = "unsupported startup parameter"
"""In PgBouncer's refusal of the options."""
BACKEND = "SELECT pg_backend_pid()"


def startup_options(session: Mapping[str, str]) -> str:
    """Return the settings of a session as the parameter `options` of a connection."""
    escaped = {name: value.replace(" ", r"\ ") for name, value in session.items()}
    return " ".join(f"-c {name}={value}" for name, value in escaped.items())


def check_sessions(engine: sa.Engine, connect_args: Mapping[str, Any], session: Mapping[str, str]) -> None:
    """Have an engine check each new connection, as `check_session`.

    Args:
        engine: to check.
        connect_args: with which the engine opens connections.
        session: the settings that each session needs.
    """
    arguments = {**engine.dialect.create_connect_args(engine.url)[1], **connect_args}

    def check(connection: Any, record: ConnectionPoolEntry) -> None:
        driver_connection: Any = record.driver_connection
        try:
            check_session(connection, driver_connection.pgconn, arguments, session)
        except SettingsError:
            connection.close()
            raise

    event.listen(engine, "connect", check)
    event.listen(engine, "handle_error", _explain_refused_options)


def check_session(connection: Any, pgconn: PGconn, arguments: Mapping[str, Any], session: Mapping[str, str]) -> None:
    """Check that a new connection has a session of its own with the settings; set missing settings.

    Args:
        connection: as in the DB-API.
        pgconn: of the connection.
        arguments: with which the connection was opened.
        session: the settings.

    Raises:
        SettingsError: a pooler gives each transaction to another session.
    """
    values = ", ".join(["current_setting(%s)"] * len(session))
    backend, *actual = _row(connection, f"SELECT pg_backend_pid(), {values}", list(session))
    # A pooler answers in place of the server, so it does not know the number of the server's process.
    if backend != pgconn.backend_pid and _shares_sessions(connection, arguments):
        raise SettingsError(TRANSACTION_MODE)
    if actual != list(session.values()):
        settings = ", ".join(["set_config(%s, %s, false)"] * len(session))
        _row(connection, f"SELECT {settings}", [text for setting in session.items() for text in setting])
        connection.commit()


def set_in_each_transaction(engine: sa.Engine, session: Mapping[str, str]) -> None:
    """Have an engine set the settings at the begin of each transaction, because the session may be another's."""
    values = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in session.items())

    def set_settings(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SELECT {values}")

    event.listen(engine, "begin", set_settings)


def _shares_sessions(connection: Any, arguments: Mapping[str, Any]) -> bool:
    """Return whether two open connections had one session: the idle connection has lost its session."""
    options = {**arguments, "connect_timeout": CONNECT_SECONDS}
    options.pop("context", None)
    with closing(psycopg.connect(autocommit=True, prepare_threshold=None, **options)) as other:
        for _ in range(ATTEMPTS):
            backend = _backend_of(other.pgconn)
            if backend is None:
                return False
            if _row(connection, BACKEND, []) == [backend]:
                return True
    return False


def _row(connection: Any, statement: str, values: list[str]) -> list[Any]:
    """Run a statement in a transaction, and return the row."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement, values)
        row = list(cursor.fetchone())
    if not statement.startswith("SELECT set_config"):
        connection.rollback()
    return row


def _backend_of(pgconn: PGconn) -> int | None:
    """Return the server process of a connection; None if the pooler has no free session, as in session mode."""
    pgconn.send_query(BACKEND.encode())
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    if not poll.poll(ANSWER_MS):
        return None
    value = None
    while result := pgconn.get_result():
        value = result.get_value(0, 0) or value
    return int(value) if value else None


def _explain_refused_options(context: ExceptionContext) -> None:
    if REFUSAL in str(context.original_exception):
        raise SettingsError(OPTIONS_REFUSED) from context.original_exception
