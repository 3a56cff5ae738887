"""Wait until a feed has changes, for requests with `Prefer: wait`.

A waiting request holds no connection. A task of the process looks for the changes of all waiting requests in one
statement, several times a second.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from api.changes.positions import Seen
from infra import logs

log = structlog.get_logger()

LOOK_SECONDS = 0.1
"""Pause between two looks."""
QUERY_SECONDS = 2.0
"""Time limit of a look."""
# A new epoch is a reason to look again, because numbers of transactions may be given out again.
CHANGED = sa.text("""
    SELECT w.position FROM current_epoch() e
    CROSS JOIN unnest(CAST(:environments AS int[]), CAST(:resources AS text[]), CAST(:snapshots AS text[]),
                      CAST(:epochs AS uuid[]))
        WITH ORDINALITY AS w (environment_id, resource, snapshot, epoch, position)
    WHERE w.epoch <> e.id
        OR EXISTS (SELECT FROM changes c WHERE c.environment_id = w.environment_id AND c.resource = w.resource
                   AND c.xid >= pg_snapshot_xmax(CAST(w.snapshot AS pg_snapshot)))
        OR EXISTS (SELECT FROM pg_snapshot_xip(CAST(w.snapshot AS pg_snapshot)) AS x (xid)
                   JOIN changes c ON c.environment_id = w.environment_id AND c.resource = w.resource AND c.xid = x.xid)
    """)


class Wait(NamedTuple):
    """What a request waits for: a change of the feed that is not in the snapshot."""

    environment_id: int
    resource: str
    seen: Seen


class _Waiting(msgspec.Struct, eq=False):
    wait: Wait
    changed: asyncio.Future[None]


class ChangeWatch:
    """Looks for the changes of all waiting requests of a process. A process has a single instance."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting = list[_Waiting]()
        self.is_stopping = False
        self._task: asyncio.Task[None] | None = None

    async def wait(self, wait: Wait, seconds: float) -> None:
        """Return when the feed has a change that is not in the snapshot, or after `seconds`."""
        waiting = _Waiting(wait, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            await asyncio.wait([waiting.changed], timeout=seconds)
        finally:
            self._waiting.remove(waiting)

    def stop_waiting(self) -> None:
        """Let every request answer at once, because the process ends."""
        self.is_stopping = True
        for waiting in self._waiting:
            if not waiting.changed.done():
                waiting.changed.set_result(None)

    async def close(self) -> None:
        self.stop_waiting()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _look(self) -> None:
        while self._waiting:
            await asyncio.sleep(LOOK_SECONDS)
            waiting = [each for each in self._waiting if not each.changed.done()]
            for each in await self._changed(waiting) if waiting else ():
                if not each.changed.done():
                    each.changed.set_result(None)

    async def _changed(self, waiting: Sequence[_Waiting]) -> list[_Waiting]:
        values = {
            "environments": [each.wait.environment_id for each in waiting],
            "resources": [each.wait.resource for each in waiting],
            "snapshots": [each.wait.seen.snapshot for each in waiting],
            "epochs": [each.wait.seen.epoch for each in waiting],
        }
        try:
            async with asyncio.timeout(QUERY_SECONDS), self._engine.begin() as connection:
                return [waiting[position - 1] for position in (await connection.execute(CHANGED, values)).scalars()]
        except (SQLAlchemyError, TimeoutError) as error:
            log.warning("changes_not_read", reason=logs.error_kind(error))
            return []
