"""Connections to PostgreSQL.

Errors never contain the values of a statement (`hide_parameters`), because the values are personal data.
"""

import select
import time
from functools import partial
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from infra.database.activity import application_name
from infra.settings import Settings

SESSION_OPTIONS = (
    # Explicit, because the database may have different defaults: a drain must see changes committed after its claim.
    "-c idle_in_transaction_session_timeout=15s -c timezone=UTC -c default_transaction_isolation=read\\ committed"
)
# The outbox and the staging tables of imports are empty at one moment and huge at the next. A cached plan for the empty
# table scans the whole table for each row: a burst of 30,000 changes then takes minutes instead of seconds.
CUSTOM_PLAN_OPTIONS = f"{SESSION_OPTIONS} -c plan_cache_mode=force_custom_plan"
# No statement of the indexer takes this long in normal operation.
INDEXER_OPTIONS = f"{CUSTOM_PLAN_OPTIONS} -c statement_timeout=20s"
# The locks of a frozen or vanished client are released: the kernel drops the connection after 15 s, and the server ends
# a transaction after 15 idle seconds. Both limits are longer than OpenSearch's timeout (10 s).
CONNECT_ARGS = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    "options": CUSTOM_PLAN_OPTIONS,
}

READ_ONLY = "25006"
"""PostgreSQL's error code of a write to a read-only server."""

RETURNED_AT = "returned at"
TRUSTED_SECONDS = 5
"""A connection used within this time is taken as usable, unless the server has sent data since."""

OPAQUE_ENVIRONMENT_ID = "(SELECT CAST(:environment_id AS int))"
"""`:environment_id` in a subselect, so the planner cannot use the value. For statements on many rows.

For an environment newer than the table's statistics the planner would estimate zero rows and choose a sequential scan,
even for each row of a batch.
"""


def sqlalchemy_url(database_url: str) -> sa.URL:
    """Convert a `postgresql://` address to SQLAlchemy's form, with psycopg as the driver."""
    return sa.make_url(database_url).set(drivername="postgresql+psycopg")


def open_async_engine(settings: Settings) -> AsyncEngine:
    """Open the API's connections for requests. An unusable connection is replaced before use."""
    # With cached plans: the statements of a request are few and short, so the time to plan would be noticeable.
    return _async_engine(settings, settings.database_pool, {"options": SESSION_OPTIONS})


def open_watching_engine(settings: Settings) -> AsyncEngine:
    """Open the API's connections for watching the outbox, with autocommit.

    The connections are separate from the pool for requests, because requests may use the whole pool.
    """
    return _async_engine(settings, 2, {"options": INDEXER_OPTIONS}, isolation_level="AUTOCOMMIT")


def _async_engine(
    settings: Settings, pool_size: int, connect_args: dict[str, str], **engine_options: Any
) -> AsyncEngine:
    engine = create_async_engine(
        sqlalchemy_url(settings.database_url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        connect_args=CONNECT_ARGS | connect_args,
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


def _check_usable(dialect: sa.Dialect, connection: Any, record: ConnectionPoolEntry, _: object) -> None:
    """Check a connection before a request uses it.

    The check queries the server only if the connection was idle for a while, or if the server has sent data, for
    example at a shutdown. Without this condition every request would wait for an answer.

    Raises:
        InvalidatePoolError: the connection is unusable, so the pool replaces it.
    """
    idle_seconds = time.monotonic() - record.info.get(RETURNED_AT, time.monotonic())
    try:
        if idle_seconds < TRUSTED_SECONDS and not has_unread_data(connection.driver_connection.pgconn.socket):
            return
        dialect.do_ping(connection)
    except psycopg.Error:
        raise InvalidatePoolError from None


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
    indexer_args = {"application_name": application_name(name), "options": INDEXER_OPTIONS} if name else {}
    engine = sa.create_engine(
        sqlalchemy_url(settings.database_url),
        pool_size=pool_size,
        pool_pre_ping=True,
        connect_args=CONNECT_ARGS | indexer_args,
        hide_parameters=True,
    )
    event.listen(engine, "handle_error", _replace_read_only)
    return engine
