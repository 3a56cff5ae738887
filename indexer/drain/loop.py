"""Rounds, one after the other, for as long as there is something to do; gently while the index or database is away."""

import time

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from sqlalchemy.exc import SQLAlchemyError

from indexer.drain import claims
from indexer.drain.bulk import IndexUnavailable
from indexer.drain.round import Round, drain_round
from infra import logs, queue
from infra.backoff import Backoff

log = structlog.get_logger()

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 2.0
"""Between attempts at a place that fails. The longest bounds how late the index follows after its return."""
LOOK_SECONDS = 0.02
ENOUGH = 4
"""A round that finds less than this part of what it could take is the last: what came meanwhile sent a wake-up."""


class Drainer:
    """Drains one lane. One a process and lane."""

    def __init__(self, engine: sa.Engine, client: OpenSearch, lane: str, backoff: Backoff | None = None) -> None:
        self._engine, self._client, self._lane = engine, client, lane
        self._rows = claims.ROWS
        self._backoff = backoff or Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)

    def catch_up(self, seconds: float) -> bool:
        """Bring the index up to the database, for so long at the most; tell whether there may be more to do.

        Never raises: what went wrong is in the log, and the rows are in the outbox.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._backoff.is_pausing:
            asked = self._rows
            if (done := self._round()) and done.rows * ENOUGH < asked:
                return False
            if done and self._lane == queue.BULK:
                self._give_way(done.milliseconds / 1000)
        return time.monotonic() >= until

    def _give_way(self, seconds: float) -> None:
        """While somebody waits for the other lane, leave it the machine as long as the last round had it."""
        until = time.monotonic() + seconds
        try:
            with self._engine.connect() as connection:
                while time.monotonic() < until and claims.has_claimable_rows(connection, queue.LIVE):
                    connection.rollback()
                    time.sleep(LOOK_SECONDS)
        except SQLAlchemyError as error:
            self._fail(error)

    def _round(self) -> Round | None:
        try:
            with self._engine.connect() as connection:
                done = drain_round(connection, self._client, self._lane, self._rows)
        except Exception as error:  # noqa: BLE001 (no row, and no fault of a library, may end the drain)
            self._fail(error)
            return None
        self._rows = min(claims.ROWS, 2 * self._rows)
        self._backoff.reset()
        if done.rows:
            log.info("drained", lane=self._lane, **done._asdict())
        return done

    def _fail(self, error: Exception) -> None:
        """Should it be for one row's sake, that row is alone after some rounds; should it be for too much, likewise."""
        reason = str(error) if isinstance(error, IndexUnavailable) else logs.error_kind(error)
        log.warning("drain_postponed", lane=self._lane, rows=self._rows, reason=reason)
        self._rows = max(1, self._rows // 4)
        self._backoff.pause()
