"""The heartbeat of an export: a thread records a sign of life every few seconds."""

import threading

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError

from indexer.exports import claims
from indexer.exports.claims import ClaimedExport, ClaimLost
from infra import logs

log = structlog.get_logger()

BEAT_SECONDS = 2.0


class Heartbeat:
    """Records heartbeat and progress of an export, until stopped or until the claim is lost."""

    def __init__(self, engine: sa.Engine, export: ClaimedExport) -> None:
        """Begin.

        Args:
            engine: with room for a connection.
            export: claimed by this process.
        """
        self._engine, self._export = engine, export
        self._progress, self._rows = 0.0, 0
        self._is_lost = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def advance(self, progress: float, rows: int | None = None) -> None:
        """Note the progress, from 0 to 1, and the number of rows read.

        Raises:
            ClaimLost: the export was deleted, or another worker has claimed it.
        """
        self._progress, self._rows = progress, self._rows if rows is None else rows
        if self._is_lost:
            raise ClaimLost

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                claims.beat(self._engine, self._export, self._progress, self._rows)
            except ClaimLost:
                self._is_lost = True
                return
            except DBAPIError as error:
                log.warning("heartbeat_failed", export=self._export.id, reason=logs.error_kind(error))
