"""Read a page of a feed of changes from PostgreSQL.

A page is read in one snapshot: the position, the rows of `changes`, and the objects as they are now.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.changes.positions import ChangeCursors, Position, Seen
from api.changes.schemas import NOW, ChangesPageInfo, ChangesParameters
from api.error_codes import ErrorCode
from api.errors import Fault, Problem, invalid
from infra.wire import time

OBJECTS_AT_A_TIME = 50
MAX_PAGE_BYTES = 1024 * 1024
"""A page ends early, with at least `OBJECTS_AT_A_TIME` changes, if its objects have more bytes."""
REUSED_XIDS = 1 << 20
"""After a crash, numbers of aborted transactions may be given out again: only the last, far fewer than these."""

# In a transaction of its own: with a fixed snapshot, `current_epoch` would not see an epoch begun by another session.
BEGIN_EPOCH = sa.text("SELECT FROM current_epoch()")
# The position in the WAL is read after the snapshot was taken, so every visible change was written before.
PRESENT = sa.text("""
    SELECT e.id::text AS epoch, pg_current_wal_flush_lsn()::text AS lsn, pg_current_snapshot()::text AS snapshot,
        now() AS at
    FROM epochs e ORDER BY e.number DESC LIMIT 1""")
# The first position that an earlier epoch does not share with the present; null for an unknown epoch.
FORK = sa.text("""
    SELECT min(later.fork_lsn)::text AS fork, min(later.fork_lsn) >= CAST(:lsn AS pg_lsn) AS is_kept
    FROM epochs known JOIN epochs later ON later.number > known.number WHERE known.id = CAST(:epoch AS uuid)""")
EARLIER = sa.text("""
    SELECT epoch::text AS epoch, lsn::text AS lsn, snapshot::text AS snapshot, at FROM change_snapshots
    WHERE at <= :begin ORDER BY at DESC LIMIT 1""")

_OF_FEED = """
    SELECT xid, object_id, kind, at FROM changes
    WHERE environment_id = :environment_id AND resource = :resource
        AND (xid, object_id) > (CAST(:xid AS xid8), :object_id)
        AND pg_visible_in_snapshot(xid, CAST(:target AS pg_snapshot)) AND {unseen}
    ORDER BY xid, object_id LIMIT :rows"""
_IN_PROGRESS, _LATER = "xid = ANY (CAST(:in_progress AS xid8[]))", "xid >= CAST(:next_xid AS xid8)"
ROWS = sa.text(f"""
    SELECT xid::text AS xid, object_id, kind, at
    FROM (({_OF_FEED.format(unseen=_IN_PROGRESS)}) UNION ALL ({_OF_FEED.format(unseen=_LATER)})) AS unseen
    ORDER BY unseen.xid, object_id LIMIT :rows""")
# In a later epoch, the numbers of aborted transactions of the earlier epoch may be given out again.
_REPEATED = f"({_IN_PROGRESS} OR xid >= CAST(:oldest_xid AS xid8) AND ({_LATER} OR lsn >= CAST(:fork AS pg_lsn)))"
ROWS_OF_LATER_EPOCH = sa.text(f"""
    SELECT xid::text AS xid, object_id, kind, at FROM ({_OF_FEED.format(unseen=_REPEATED)}) AS unseen
    ORDER BY unseen.xid, object_id""")

Load = Callable[[AsyncConnection, Caller, Sequence[str]], Awaitable[dict[str, bytes]]]


class Feed(NamedTuple):
    """The feed of a resource."""

    resource: str
    """In the plural, as in the path and in the column `resource`."""
    member: str
    """The name of the object in a change."""
    load: Load
    """Returns the objects with these ids as JSON, by id."""


class Page(NamedTuple):
    """A page: the JSON of its changes, and the position behind."""

    changes: list[bytes]
    position: Position
    has_more: bool

    def json(self, cursors: ChangeCursors) -> bytes:
        info = ChangesPageInfo(cursors.encode(self.position), self.has_more)
        return b'{"data":[%b],"pageInfo":%b}' % (b",".join(self.changes), msgspec.json.encode(info))


class _Row(NamedTuple):
    xid: str
    object_id: str
    kind: str
    at: datetime


async def start(connection: AsyncConnection) -> None:
    """Begin a transaction in which all statements see the same, in the present epoch."""
    await connection.execution_options(isolation_level="AUTOCOMMIT")
    await connection.execute(BEGIN_EPOCH)
    await connection.commit()
    await connection.execution_options(isolation_level="REPEATABLE READ")


async def read(
    connection: AsyncConnection, caller: Caller, feed: Feed, parameters: ChangesParameters, days: int
) -> Page:
    """Read the page that the parameters name.

    Args:
        connection: in a transaction that `start` began.
        caller: the environment to read.
        feed: to read.
        parameters: of the request.
        days: number of days that changes are kept.

    Raises:
        Problem: 400 for an invalid cursor; 410 if the position is too old, or in a lost part of the history.
    """
    row = (await connection.execute(PRESENT)).one()
    present = Seen(row.epoch, row.lsn, row.snapshot, row.at)
    if parameters.after is not None:
        position = ChangeCursors(caller.seal, feed.resource).decode(parameters.after)
    elif parameters.begin:
        position = Position(await _earlier(connection, parameters.begin, present, days))
    else:
        return Page([], Position(present), has_more=False)
    if position.seen.at < present.at - timedelta(days=days):
        raise _expired(f"Changes are kept for {days} days")
    fork = await _fork(connection, position.seen, present)
    if position.target is None or position.target.epoch != present.epoch:
        position = Position(position.seen, present)
    page = await _walk(connection, caller, feed, position, parameters.first, fork)
    # A walk that began with an earlier page ends with the changes of that time.
    is_behind = page.position.target is None and page.position.seen.snapshot != present.snapshot
    return page._replace(has_more=page.has_more or is_behind)


async def _earlier(connection: AsyncConnection, begin: datetime, present: Seen, days: int) -> Seen:
    """Return the newest recorded snapshot of a time or before."""
    if begin > present.at:
        raise invalid(Fault("from", f"Must be {NOW} or a time in the past", ErrorCode.INVALID_TIME))
    row = (await connection.execute(EARLIER, {"begin": begin})).one_or_none()
    if row is None:
        raise _expired(f"Changes are kept for {days} days, and none is recorded from that time")
    return Seen(row.epoch, row.lsn, row.snapshot, row.at)


async def _fork(connection: AsyncConnection, seen: Seen, present: Seen) -> str | None:
    """Return where the history continued without the reader's epoch; None if the epoch is the present one.

    Raises:
        Problem: 410 if the reader may have seen changes that are lost.
    """
    if seen.epoch == present.epoch:
        return None
    row = (await connection.execute(FORK, {"epoch": seen.epoch, "lsn": seen.lsn})).one()
    if not row.is_kept:
        raise _expired("The database was restored, or continued on another server, without the latest changes")
    return str(row.fork)


def _expired(message: str) -> Problem:
    message += ": read the whole list again, and continue from a cursor that was taken before (from=now)"
    return Problem(HTTPStatus.GONE, "Changes expired", code=ErrorCode.CHANGES_EXPIRED, message=message)


async def _walk(
    connection: AsyncConnection, caller: Caller, feed: Feed, position: Position, size: int, fork: str | None
) -> Page:
    """Read the next rows of a walk, and the objects."""
    seen, target = position.seen, position.target
    assert target
    values = {
        "environment_id": caller.environment_id,
        "resource": feed.resource,
        "xid": position.xid,
        "object_id": position.object_id,
        "target": target.snapshot,
        "in_progress": seen.in_progress,
        "next_xid": seen.next_xid,
        "rows": size + 1,
    }
    if fork:
        values |= {"fork": fork, "oldest_xid": str(max(0, int(seen.next_xid) - REUSED_XIDS))}
    found = (await connection.execute(ROWS_OF_LATER_EPOCH if fork else ROWS, values)).all()
    rows = [_Row(*row) for row in found]
    changes = list[bytes]()
    total = 0
    last: _Row | None = None
    for start in range(0, min(len(rows), size), OBJECTS_AT_A_TIME):
        part = rows[start : min(start + OBJECTS_AT_A_TIME, size)]
        objects = await feed.load(connection, caller, list({row.object_id for row in part}))
        changes += [_change(row, feed.member, objects.get(row.object_id)) for row in _without_repeats(part)]
        last = part[-1]
        total += sum(map(len, objects.values()))
        if total > MAX_PAGE_BYTES:
            break
    if last and last is not rows[-1]:
        return Page(changes, Position(seen, target, last.xid, last.object_id), has_more=True)
    # The walk is complete. Without a change in the whole walk, the reader has seen nothing that could be lost.
    is_empty = last is None and position.xid == "0" and seen.epoch == target.epoch
    return Page(
        changes, Position(msgspec.structs.replace(target, lsn=seen.lsn) if is_empty else target), has_more=False
    )


def _without_repeats(rows: Sequence[_Row]) -> list[_Row]:
    """Return a row for each object of a transaction: of kind `created`, if one of its rows is."""
    merged = dict[tuple[str, str], _Row]()
    for row in rows:
        key = row.xid, row.object_id
        if key not in merged or row.kind == "created":
            merged[key] = row
    return list(merged.values())


def _change(row: _Row, member: str, current: bytes | None) -> bytes:
    # The object is shown as it is now, so the type tells what it is now.
    kind = "deleted" if current is None else "updated" if row.kind == "deleted" else row.kind
    return b'{"type":"%b","id":%b,"at":"%b","%b":%b}' % (
        kind.encode(),
        msgspec.json.encode(row.object_id),
        time(row.at).encode(),
        member.encode(),
        current or b"null",
    )
