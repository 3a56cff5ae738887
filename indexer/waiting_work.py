"""Look for waiting work each second, and wake the workers for the work. Move the floors of the outbox.

A query in beat's process costs far less than the task for each kind of work, so an idle service uses little processor
time. The worker of the lane `live` finds its changes itself (`indexer/drain/follow.py`). The query discovers changes
that it has not indexed, for any reason, changes of the lane `bulk`, and work with a lost wake-up. Beat also sends every
task periodically without the query, but less often.
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
from infra.database.floors import first_waiting
from infra.settings import Settings

log = structlog.get_logger()

LOOK_SECONDS = 1.0
LATE = "interval '1 second'"
"""Age of a change of the lane `live` from which it needs another worker than the one that follows the lane."""

# `is_late` is null if no change waits.
# `building` holds whenever `indexer.rebuild.builder.Builder.step` may have a step to take.
WAITING = sa.text(f"""
    SELECT ({first_waiting(f"created_at < clock_timestamp() - {LATE}", "'live'")}) AS is_late,
        ({first_waiting("true", "'bulk'")}) IS NOT NULL AS bulk,
        EXISTS (
            SELECT FROM generations WHERE state IN ('filling', 'refreshed')
                OR state = 'kept' AND (wanted IS NOT NULL OR keep_until <= now())
                OR state = 'dropped' AND removed_at IS NULL)
            OR EXISTS (SELECT FROM generation_misses) AS building,
        EXISTS (SELECT FROM verifications WHERE finished_at IS NULL AND kind <> 'watch') AS running,
        EXISTS (SELECT FROM exports WHERE state IN ('queued', 'running')) AS exporting""")
TASKS = {"bulk": queue.DRAIN_BULK, "building": queue.BUILD, "running": queue.COMPARE, "exporting": queue.EXPORT}


class WorkFinder:
    """Finds waiting work, and sends the wake-ups."""

    def __init__(self, settings: Settings) -> None:
        self._engine = open_engine(settings, name="waiting-work")
        self._queue = queue.TaskQueue(settings)
        self._epoch: epochs.Epoch | None = None
        self._floors = Floors()

    def run(self) -> None:
        """Look for work forever."""
        advance = signs_of_life.loop("waiting work")
        while True:
            advance()
            try:
                self.look()
            except DBAPIError as error:
                log.warning("look_postponed", reason=logs.error_kind(error))
            time.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Look once, and send a wake-up for each kind of waiting work. Begin a new epoch if the database needs one.

        Raises:
            DBAPIError: the database is unavailable.
        """
        is_behind = True
        while is_behind:
            with self._engine.begin() as connection:
                self._check_epoch(connection)
                # After a pause of beat, each scan is slow until the floors have caught up.
                if not (is_behind := self._floors.move(connection)):
                    waiting = connection.execute(WAITING).mappings().one()
        if waiting["is_late"]:
            self._queue.send(queue.DRAIN)
        elif waiting["is_late"] is not None:
            self._queue.wake_drain()
        for kind, task in TASKS.items():
            if waiting[kind]:
                self._queue.send(task)

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
