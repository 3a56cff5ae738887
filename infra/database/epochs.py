"""Epochs: the histories of the database (docs/decisions/0022-epochs.md).

A promoted, restored or replaced server begins a new epoch. The SQL function `current_epoch` compares the newest row of
the table `epochs` with the server, and inserts a row if the server is not the one that began the newest epoch. It runs
before every statement that changes consumers, at the start of every request's transaction, and each second in
beat's process. So no process keeps an epoch in memory for its decisions.

A process passes on the epoch that it saw last. If the server does not know this epoch, the process has come back from
a server with another history, and a new epoch begins as well.
"""

from datetime import datetime
from typing import Literal, TypeAlias

import msgspec
import sqlalchemy as sa

Reason: TypeAlias = Literal["first", "restart", "timeline", "restore"]
"""Why an epoch began: the database was new, its server was restarted, a standby was promoted or a recovery has ended,
or the database was restored from a dump or replaced."""

CURRENT = sa.text("""
    SELECT number, id::text, reason, began_at FROM current_epoch(CAST(:seen AS uuid)) WHERE number IS NOT NULL""")
NEWEST = sa.text("SELECT number, id::text, reason, began_at FROM epochs ORDER BY number DESC LIMIT 1")


class Epoch(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An epoch of the database."""

    number: int
    """1 for the first epoch, one more for each further epoch."""
    id: str
    """The id, which consistency tokens contain."""
    reason: Reason
    """Why the epoch began: the first start, or a fail-over, a restore or a crash that may have lost writes."""
    began_at: datetime
    """Time at which the epoch began."""


def check(connection: sa.Connection, seen: Epoch | None = None) -> Epoch | None:
    """Return the present epoch; begin a new epoch if the server is not the one that began the newest epoch.

    Args:
        connection: in a transaction, which the caller commits.
        seen: the epoch that this process saw last.

    Returns:
        None if the server is a standby without any epoch.
    """
    row = connection.execute(CURRENT, {"seen": seen.id if seen else None}).one_or_none()
    return None if row is None else msgspec.convert(row, Epoch, from_attributes=True)


def newest(connection: sa.Connection) -> Epoch | None:
    """Return the newest epoch; None before the first change of a consumer."""
    row = connection.execute(NEWEST).one_or_none()
    return None if row is None else msgspec.convert(row, Epoch, from_attributes=True)
