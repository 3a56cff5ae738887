"""Look for waiting work four times a second, and wake the workers for the work. Move the floors of the outbox.

A query in beat's process costs far less than the task for each kind of work, so an idle service uses little processor
time. The API wakes the drain itself. The query discovers changes by SQL, and work with a lost wake-up. Beat also sends
every task periodically without the query, but less often.
"""

import threading
import time

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError

from indexer.floors import Floors
from indexer.liveness import signs_of_life
from infra import logs, queue
from infra.database import epochs
from infra.database.engine import open_engine
from infra.database.floors import USE_INDEX_ORDER, first_waiting
from infra.settings import Settings

log = structlog.get_logger()

LOOK_SECONDS = 0.25
TASK_SECONDS = 1.0
"""Shortest time between two wake-ups for the same kind of work, except the live lane."""

# `building` holds whenever `indexer.rebuild.builder.Builder.step` may have a step to take.
WAITING = sa.text(f"""
    SELECT ({first_waiting("true", "'live'")}) IS NOT NULL AS live,
        ({first_waiting("true", "'bulk'")}) IS NOT NULL AS bulk,
        EXISTS (
            SELECT FROM generations WHERE state IN ('filling', 'refreshed')
                OR state = 'kept' AND (wanted IS NOT NULL OR keep_until <= now())
                OR state = 'dropped' AND removed_at IS NULL)
            OR EXISTS (SELECT FROM generation_misses) AS building,
        EXISTS (SELECT FROM verifications WHERE finished_at IS NULL AND kind <> 'watch') AS running,
        EXISTS (SELECT FROM exports WHERE state IN ('queued', 'running')) AS exporting""")
FLOOR_SECONDS = 1.0
"""Pause between two moves of the outbox's floors."""
TASKS = {"bulk": queue.DRAIN_BULK, "building": queue.BUILD, "running": queue.COMPARE, "exporting": queue.EXPORT}


class WorkFinder:
    """Finds waiting work, and sends the wake-ups."""

    def __init__(self, settings: Settings) -> None:
        self._engine = open_engine(settings, name="waiting-work")
        self._queue = queue.TaskQueue(settings)
        self._sent_at: dict[str, float] = {}
        self._epoch: epochs.Epoch | None = None
        self._floors = Floors()
        self._floors_moved_at = -FLOOR_SECONDS

    def run(self) -> None:
        """Look for work forever."""
        advance = signs_of_life.loop("waiting work")
        while True:
            advance()
            try:
                self.look()
            except DBAPIError as error:
                log.warning("look_postponed", reason=logs.error_kind(error))
                time.sleep(TASK_SECONDS)
            time.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Look once, and send a wake-up for each kind of waiting work. Begin a new epoch if the database needs one.

        Raises:
            DBAPIError: the database is unavailable.
        """
        self._move_floors()
        with self._engine.begin() as connection:
            self._check_epoch(connection)
            connection.execute(USE_INDEX_ORDER)
            waiting = connection.execute(WAITING).mappings().one()
        if waiting["live"]:
            self._queue.send(queue.DRAIN)
        for kind, task in TASKS.items():
            if waiting[kind] and time.monotonic() >= self._sent_at.get(kind, 0.0) + TASK_SECONDS:
                self._sent_at[kind] = time.monotonic()
                self._queue.send(task)

    def _move_floors(self) -> None:
        """Move the floors if that is due. After a pause of beat, each scan is slow until the floors have caught up."""
        is_behind = time.monotonic() >= self._floors_moved_at + FLOOR_SECONDS
        while is_behind:
            self._floors_moved_at = time.monotonic()
            with self._engine.begin() as connection:
                self._check_epoch(connection)
                is_behind = self._floors.move(connection)

    def _check_epoch(self, connection: sa.Connection) -> None:
        """Forget the candidates for floors if the server is another one: their numbers and writers are not its own."""
        epoch = epochs.check(connection, self._epoch)
        if epoch != self._epoch:
            self._epoch, self._floors = epoch, Floors()

    def close(self) -> None:
        self._engine.dispose()
        self._queue.close()


def start(settings: Settings) -> None:
    """Start a thread to look for work, until the process ends."""
    threading.Thread(target=WorkFinder(settings).run, name="waiting-work", daemon=True).start()
