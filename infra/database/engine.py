"""Connections to PostgreSQL.

Errors never contain the values of a statement (`hide_parameters`), because the values are personal data.
"""

import select
import time
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.abc import PGconn
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from infra.database import pooling
from infra.database.activity import application_name
from infra.database.floors import INDEX_ORDER
from infra.database.pooling import startup_options
from infra.settings import Settings, SettingsError

# Explicit, because the database may have different defaults: a drain must see changes committed after its claim.
SESSION: Mapping[str, str] = {
    "idle_in_transaction_session_timeout": "15s",
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",
}
# A read answers in this time, or with 503. Transactions of writes have no limit (`api/transactions.py`).
REQUESTS: dict[str, str] = {**SESSION, "statement_timeout": "10s"}
# The outbox and the staging tables of imports are empty at one moment and huge at the next. A cached plan for the empty
# table scans the whole table for each row: a burst of 30,000 changes then takes minutes instead of seconds.
CUSTOM_PLANS: Mapping[str, str] = {**SESSION, "plan_cache_mode": "force_custom_plan"}
# No statement of the indexer takes this long in normal operation.
INDEXER: Mapping[str, str] = {**CUSTOM_PLANS, "statement_timeout": "20s"}
# The locks of a frozen or vanished client are released: the kernel drops the connection after 15 s, and the server ends
# a transaction after 15 idle seconds. Both limits are longer than OpenSearch's timeout (10 s).
CONNECT_ARGS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    "options": startup_options(CUSTOM_PLANS),
}

READ_ONLY = "25006"
"""PostgreSQL's error code of a write to a read-only server."""

NEXT_HOST_SECONDS = 2
"""How long a connection waits for one of several hosts."""
WRITABLE_HOST = {"target_session_attrs": "read-write"}
"""Of several hosts, connect to the host that accepts writes."""

RETURNED_AT = "returned at"
TRUSTED_SECONDS = 5
"""A connection used within this time is taken as usable, unless the server has sent data since."""

OPAQUE_ENVIRONMENT_ID = "(SELECT CAST(:environment_id AS int))"
"""`:environment_id` in a subselect, so the planner cannot use the value. For statements on many rows.

For an environment newer than the table's statistics the planner would estimate zero rows and choose a sequential scan,
even for each row of a batch.
"""


def sqlalchemy_url(database_url: str) -> sa.URL:
    """Convert a `postgresql://` address to SQLAlchemy's form, with psycopg as the driver.

    With several hosts, connections go to the host that accepts writes, unless the address says otherwise.
    """
    if not has_several_hosts(database_url):
        return sa.make_url(database_url).set(drivername="postgresql+psycopg")
    # SQLAlchemy reads several hosts from options only.
    options = WRITABLE_HOST | {name: str(value) for name, value in conninfo_to_dict(database_url).items()}
    return sa.URL.create("postgresql+psycopg", query=options)


def has_several_hosts(database_url: str) -> bool:
    parts = urlsplit(database_url)
    return "," in parts.netloc.rpartition("@")[2] + dict(parse_qsl(parts.query)).get("host", "")


def _connect_args(database_url: str) -> dict[str, Any]:
    """Return the arguments of a connection. A host that does not answer must not keep requests from the next one."""
    return CONNECT_ARGS | ({"connect_timeout": NEXT_HOST_SECONDS} if has_several_hosts(database_url) else {})


def open_async_engine(settings: Settings, pool_size: int | None = None) -> AsyncEngine:
    """Open the API's connections for requests, with autocommit. An unusable connection is replaced before use.

    Most reads are a single statement, and a transaction around it takes two round trips more. A write begins its
    transaction itself (`driver.begin`).

    Args:
        settings: with the address of the database.
        pool_size: maximum of connections; by default DATABASE_POOL.
    """
    pool_size = pool_size or settings.database_pool
    # With cached plans: the statements of a request are few and short, so the time to plan would be noticeable.
    if settings.database_session_url is None:
        return _with_sessions(settings.database_url, pool_size, REQUESTS, isolation_level="AUTOCOMMIT")
    # The pooler gives each transaction to any session: prepared statements and settings would be those of another. So
    # there is no autocommit, and each transaction begins with the settings.
    connect_args = _connect_args(settings.database_url) | {"prepare_threshold": None}
    del connect_args["options"]
    engine = _async_engine(
        settings.database_url,
        pool_size,
        connect_args,
        isolation_level="READ COMMITTED",
    )
    pooling.set_in_each_transaction(engine.sync_engine, REQUESTS)
    return engine


def open_watching_engine(settings: Settings) -> AsyncEngine:
    """Open the API's connections for watching the outbox, with autocommit.

    The connections are separate from the pool for requests, because requests may use the whole pool.
    """
    return _with_sessions(settings.session_url, 3, {**INDEXER, **INDEX_ORDER}, isolation_level="AUTOCOMMIT")


def _with_sessions(url: str, pool_size: int, session: Mapping[str, str], **engine_options: Any) -> AsyncEngine:
    """Open connections that each have a session with the settings."""
    connect_args = _connect_args(url) | {"options": startup_options(session)}
    engine = _async_engine(url, pool_size, connect_args, **engine_options)
    pooling.check_sessions(engine.sync_engine, connect_args, session)
    return engine


def _async_engine(url: str, pool_size: int, connect_args: dict[str, Any], **engine_options: Any) -> AsyncEngine:
    engine = create_async_engine(
        sqlalchemy_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        connect_args=connect_args,
        hide_parameters=True,
        **engine_options,
    )
    event.listen(engine.sync_engine, "handle_error", _replace_read_only)
    event.listen(engine.sync_engine, "checkin", _note_return)
    event.listen(engine.sync_engine, "checkout", partial(_check_usable, engine.dialect))
    return engine


def _replace_read_only(context: ExceptionContext) -> None:
    """Have the pool replace its connections after a write was refused, because the server has become a standby.

    New connections reach the primary, if the address names several hosts or follows the primary.
    """
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _note_return(_: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info[RETURNED_AT] = time.monotonic()


def _leave_read_only_server(_connection: object, record: ConnectionPoolEntry, _: object) -> None:
    """Have the pool replace its connections once the server of a used connection has become read-only.

    Without this check a connection that never writes would read the former primary for ever.

    Raises:
        InvalidatePoolError: a new connection may reach the primary.
    """
    driver_connection: Any = record.driver_connection
    if RETURNED_AT in record.info and is_read_only(driver_connection.pgconn):
        raise InvalidatePoolError


def is_read_only(connection: PGconn) -> bool:
    """Whether the server has said so with its latest answer: a standby, or a server that accepts no writes."""
    return b"on" in {
        connection.parameter_status(name) for name in (b"in_hot_standby", b"default_transaction_read_only")
    }


def _check_usable(dialect: sa.Dialect, connection: Any, record: ConnectionPoolEntry, _: object) -> None:
    """Check a connection before its use.

    The check queries the server only if the connection was idle for a while, or if the server has sent data, for
    example at a shutdown. Without this condition every request would wait for an answer, and an idle service would send
    ten such queries a second.

    Raises:
        InvalidatePoolError: the connection is unusable, so the pool replaces it.
    """
    idle_seconds = time.monotonic() - record.info.get(RETURNED_AT, time.monotonic())
    try:
        driver_connection: Any = record.driver_connection
        if idle_seconds >= TRUSTED_SECONDS or has_unread_data(driver_connection.pgconn.socket):
            dialect.do_ping(connection)
    except psycopg.Error:
        raise InvalidatePoolError from None
    _leave_read_only_server(connection, record, _)


def has_unread_data(socket: int) -> bool:
    """Whether the server has sent data no query asked for, such as a notice of its shutdown."""
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def open_engine(settings: Settings, *, pool_size: int = 1, name: str | None = None) -> sa.Engine:
    """Open connections for workers and commands.

    Args:
        settings: with the address of the database.
        pool_size: maximum of connections.
        name: a part of the indexer, for its activity (`infra/database/activity.py`); None for commands.
    """
    session = INDEXER if name else CUSTOM_PLANS
    indexer_args = {"application_name": application_name(name), "options": startup_options(session)} if name else {}
    connect_args = _connect_args(settings.session_url) | indexer_args
    engine = sa.create_engine(
        sqlalchemy_url(settings.session_url),
        pool_size=pool_size,
        connect_args=connect_args,
        hide_parameters=True,
    )
    pooling.check_sessions(engine, connect_args, session)
    event.listen(engine, "handle_error", _replace_read_only)
    event.listen(engine, "checkin", _note_return)
    event.listen(engine, "checkout", partial(_check_usable, engine.dialect))
    return engine


def open_connection(database_url: str) -> psycopg.Connection[Any]:
    """Open a single connection with autocommit and without prepared statements, for commands that copy rows."""
    arguments: dict[str, Any] = conninfo_to_dict(database_url) | _connect_args(database_url)
    if has_several_hosts(database_url):
        arguments = WRITABLE_HOST | arguments
    connection = psycopg.connect(autocommit=True, prepare_threshold=None, **arguments)
    try:
        pooling.check_session(connection, connection.pgconn, arguments, CUSTOM_PLANS)
    except SettingsError:
        connection.close()
        raise
    return connection
