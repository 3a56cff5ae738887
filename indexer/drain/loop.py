"""Run rounds of a lane while the outbox has rows; pause while the index or the database is unavailable."""

import time

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from sqlalchemy.exc import SQLAlchemyError

from indexer.drain import claims
from indexer.drain.bulk import IndexUnavailable
from indexer.drain.round import Round, drain_round
from indexer.drain.round_robin import RoundRobin
from infra import logs, queue
from infra.backoff import Backoff

log = structlog.get_logger()

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 2.0
"""The longest pause limits how late the drain continues after the index is available again."""
POLL_SECONDS = 0.02
MIN_ROWS = 100
"""Rows claimed at least, after a successful round."""
MIN_FILL = 0.25
"""After a round that left no row, with fewer rows than this part of the maximum, the drain stops: later changes send a
wake-up."""


class Drainer:
    """Drains a lane. A process has a drainer for each lane."""

    def __init__(self, engine: sa.Engine, client: OpenSearch, lane: str, backoff: Backoff | None = None) -> None:
        self._engine, self._client, self._lane = engine, client, lane
        self._rows = claims.ROWS
        self._turns = RoundRobin()
        self._backoff = backoff or Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)

    def catch_up(self, seconds: float) -> bool:
        """Run rounds for up to `seconds`; return whether the outbox may hold more rows.

        Never raises: errors are logged, and the rows stay in the outbox.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._backoff.is_pausing:
            limit = self._rows
            if (done := self._round()) and done.rows < MIN_FILL * limit and not done.left:
                return False
            if done and self._lane == queue.BULK:
                self._yield_to_live_lane(done.milliseconds / 1000)
        return time.monotonic() >= until

    def _yield_to_live_lane(self, seconds: float) -> None:
        """While the live lane has rows, wait for up to the duration of the last round."""
        until = time.monotonic() + seconds
        try:
            with self._engine.connect() as connection:
                while time.monotonic() < until and claims.has_claimable_rows(connection, queue.LIVE):
                    connection.rollback()
                    time.sleep(POLL_SECONDS)
        except SQLAlchemyError as error:
            self._fail(error)

    def _round(self) -> Round | None:
        try:
            with self._engine.connect() as connection:
                done = drain_round(connection, self._client, self._lane, self._rows, self._turns)
        except Exception as error:  # noqa: BLE001 (neither a row nor a bug of a library may stop the drain)
            self._fail(error)
            return None
        # A round that left rows locked more rows than its time or bytes allow: large documents, usually.
        self._rows = min(claims.ROWS, max(MIN_ROWS, 2 * done.documents) if done.left else 2 * self._rows)
        self._backoff.reset()
        if done.rows:
            log.info("changes_indexed", lane=self._lane, **done._asdict())
        return done

    def _fail(self, error: Exception) -> None:
        """Pause, and continue with smaller rounds.

        After some rounds a bad row is alone in its round, and requests are small enough for the index.
        """
        reason = str(error) if isinstance(error, IndexUnavailable) else logs.error_kind(error)
        log.warning("drain_postponed", lane=self._lane, rows=self._rows, reason=reason)
        self._rows = max(1, self._rows // 4)
        self._backoff.pause()
