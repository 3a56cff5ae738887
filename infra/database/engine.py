"""Connections to PostgreSQL. An error of theirs never tells a statement's values: those are people's."""

import select
import time
from functools import partial
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from infra.database.activity import application_name
from infra.settings import Settings

OPTIONS = (
    # A database may have other defaults; a drain must see what was committed after its claim.
    "-c idle_in_transaction_session_timeout=15s -c timezone=UTC -c default_transaction_isolation=read\\ committed"
)
# The outbox, and what imports stage, are empty at one moment and huge at the next. A plan that was kept from the empty
# one goes through all of it for each row of it: a burst of 30,000 changes then takes minutes instead of seconds.
FRESH_PLANS = f"{OPTIONS} -c plan_cache_mode=force_custom_plan"
# Nothing of the indexer runs so long, unless something is wrong with it.
BOUNDED = f"{FRESH_PLANS} -c statement_timeout=20s"
# A frozen or vanished client's locks come free: the kernel gives its connection up after 15 s, and the server
# ends a transaction that does nothing for as long. Both are above OpenSearch's timeout (10 s).
CONNECT_ARGS = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    "options": FRESH_PLANS,
}

RESTS_SINCE = "rests since"
TRUSTED_SECONDS = 5
"""A connection that was used so long ago is usable, if the server has not said otherwise."""

OPAQUE_ENVIRONMENT_ID = "(SELECT CAST(:environment_id AS int))"
"""The environment of a statement that works on many rows, hidden from the planner: one that is newer than the table's
statistics it would take for empty, and read it whole, even once for each row of a batch."""


def sqlalchemy_url(database_url: str) -> sa.URL:
    """SQLAlchemy's form of a `postgresql://` address, with psycopg as its driver."""
    return sa.make_url(database_url).set(drivername="postgresql+psycopg")


def open_async_engine(settings: Settings) -> AsyncEngine:
    """The API's connections for requests; unusable ones are replaced before a request meets them."""
    # Each request's statements are few and short, so planning them anew would show.
    return _async_engine(settings, settings.database_pool, {"options": OPTIONS})


def open_watching_engine(settings: Settings) -> AsyncEngine:
    """The API's connections to look at the outbox with, apart from those that requests may use up; no transactions."""
    return _async_engine(settings, 2, {"options": BOUNDED}, isolation_level="AUTOCOMMIT")


def _async_engine(settings: Settings, pool_size: int, connect: dict[str, str], **more: Any) -> AsyncEngine:
    engine = create_async_engine(
        sqlalchemy_url(settings.database_url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        connect_args=CONNECT_ARGS | connect,
        hide_parameters=True,
        **more,
    )
    event.listen(engine.sync_engine, "checkin", _rested)
    event.listen(engine.sync_engine, "checkout", partial(_usable, engine.dialect))
    return engine


def _rested(_: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info[RESTS_SINCE] = time.monotonic()


def _usable(dialect: sa.Dialect, connection: Any, record: ConnectionPoolEntry, _: object) -> None:
    """Have a connection replaced that cannot be used any more. The server is asked only if it said something, as it
    does when it goes away, or if the connection rested for a while: else each request would wait for its answer.

    Raises:
        InvalidatePoolError: the pool is to take another.
    """
    rested = time.monotonic() - record.info.get(RESTS_SINCE, time.monotonic())
    try:
        if rested < TRUSTED_SECONDS and not _has_said(connection.driver_connection.pgconn.socket):
            return
        dialect.do_ping(connection)
    except psycopg.Error:
        raise InvalidatePoolError from None


def _has_said(socket: int) -> bool:
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def open_engine(settings: Settings, *, pool_size: int = 1, name: str | None = None) -> sa.Engine:
    """Connections for workers and commands; those of a part of the indexer carry its name (`activity`)."""
    named = {"application_name": application_name(name), "options": BOUNDED} if name else {}
    return sa.create_engine(
        sqlalchemy_url(settings.database_url),
        pool_size=pool_size,
        pool_pre_ping=True,
        connect_args=CONNECT_ARGS | named,
        hide_parameters=True,
    )
