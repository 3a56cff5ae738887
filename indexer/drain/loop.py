"""Run rounds of a lane while the outbox has rows; pause while the index or the database is unavailable.

While a backlog fills the rounds, a second thread runs rounds too: it reads rows and makes documents while OpenSearch
works on those of the other thread, and OpenSearch uses a second processor. Rounds skip the rows that another round has
locked, so two threads are like two processes.

After a failure of the index, a process claims no rows until OpenSearch answers it. Otherwise a process that is cut off
from OpenSearch would lock rows again and again, which processes with a connection could index at once.
"""

import threading
import time
from collections.abc import Callable

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import ConnectionError, OpenSearchException  # noqa: A004 (the library's name)
from sqlalchemy.exc import SQLAlchemyError

from indexer.drain import claims
from indexer.drain.bulk import IndexUnavailable
from indexer.drain.round import Round, drain_round
from indexer.drain.round_robin import RoundRobin
from infra import logs, queue
from infra.backoff import Backoff
from infra.database import activity

log = structlog.get_logger()

DRAIN_SECONDS = 10.0
"""Longest time a drain task works. If more rows wait, the next task continues."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 2.0
"""The longest pause limits how late the drain continues after the index is available again."""
POLL_SECONDS = 0.02
PROBE_SECONDS = 1.0
"""Time for OpenSearch to answer whether it can be reached."""
MIN_ROWS = 100
"""Rows claimed at least, after a successful round."""
MIN_FILL = 0.25
"""After a round that left no row, with fewer rows than this part of the maximum, the drain stops: later changes send a
wake-up."""


class Drainer:
    """Drains a lane. A process has a drainer for each lane."""

    def __init__(
        self,
        engine: sa.Engine,
        client: OpenSearch,
        lane: str,
        backoff: Backoff | None = None,
        *,
        part: str | None = None,
        assistant: "Drainer | None" = None,
        announce: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the resources.

        Args:
            engine: of the database.
            client: with answers as JSON text.
            lane: to drain.
            backoff: the pauses after failures.
            part: the name of the worker's sessions, which shows whether it is cut off.
            assistant: a drainer of the same lane, with a client of its own, for the second thread.
            announce: called after each round that changed the index.
        """
        self._engine, self._client, self._lane, self._part = engine, client, lane, part
        self._assistant, self._announce = assistant, announce
        self._has_failed = self._is_cut_off = False
        self._rows = claims.ROWS
        self.turns = RoundRobin()
        self._backoff = backoff or Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        if assistant:
            assistant.turns.rests = self.turns.rests

    @property
    def is_pausing(self) -> bool:
        """Whether the drain pauses after a failure."""
        return self._backoff.is_pausing

    def catch_up(self, seconds: float) -> bool:
        """Run rounds for up to `seconds`; return whether the outbox may hold more rows.

        Never raises: errors are logged, and the rows stay in the outbox.
        """
        until = time.monotonic() + seconds
        assistance = threading.Thread()
        try:
            while time.monotonic() < until and not self._backoff.is_pausing:
                if self._has_failed and not self._reaches_index():
                    break
                limit = self._rows
                # Before the round: a rest or the assistance may end between the claim of the round and the test below.
                is_last = self.turns.rests.resting is None and not assistance.is_alive()
                if (done := self._round()) and done.rows < MIN_FILL * limit and not done.left:
                    if is_last:
                        return False
                    # Further changes must not wait for the end of the rest, or of the other round.
                    time.sleep(POLL_SECONDS)
                elif self._assistant and self._has_backlog(done) and not assistance.is_alive():
                    assistance = threading.Thread(target=self._assistant.assist, args=[until], name="assistant")
                    assistance.start()
            return time.monotonic() >= until
        finally:
            if assistance.is_alive():
                assistance.join()

    def _has_backlog(self, done: Round | None) -> bool:
        """Return whether a round was full, and another thread may use the processors that searches need too."""
        return done is not None and done.rows >= claims.ROWS and not (done.left and self.turns.rests.is_shared)

    def assist(self, until: float) -> None:
        """Run rounds beside another drainer, while they are full."""
        self._has_failed = False
        while self._has_backlog(self._round()) and time.monotonic() < until:
            pass

    def _reaches_index(self) -> bool:
        """Ask OpenSearch for any answer, and show the result in the name of the worker's session."""
        is_cut_off = not self._is_answered()
        if self._part and (is_cut_off or self._is_cut_off):
            try:
                with self._engine.connect() as connection:
                    activity.show_reachability(connection, self._part, is_cut_off=is_cut_off)
                    connection.commit()
            except SQLAlchemyError as error:
                self._fail(error)
                return False
        if is_cut_off != self._is_cut_off:
            log.warning("index_unreachable" if is_cut_off else "index_reached", lane=self._lane)
        self._is_cut_off = self._has_failed = is_cut_off
        if is_cut_off:
            self._backoff.pause()
        return not is_cut_off

    def _is_answered(self) -> bool:
        try:
            self._client.transport.perform_request("HEAD", "/", params={"request_timeout": PROBE_SECONDS})
        except ConnectionError:
            return False
        except OpenSearchException:
            pass  # an answer of any status is an answer: the round decides about the state of the index
        return True

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
                done = drain_round(connection, self._client, self._lane, self._rows, self.turns)
        except Exception as error:  # noqa: BLE001 (neither a row nor a bug of a library may stop the drain)
            self._fail(error)
            return None
        # A round that left rows locked more rows than its time or bytes allow: large documents, usually.
        self._rows = min(claims.ROWS, max(MIN_ROWS, 2 * done.documents) if done.left else 2 * self._rows)
        self._backoff.reset()
        if done.rows:
            self._announce()
            log.info("changes_indexed", lane=self._lane, **done._asdict())
            if self._lane == queue.BULK:
                self._yield_to_live_lane(done.milliseconds / 1000)
        return done

    def _fail(self, error: Exception) -> None:
        """Pause, and continue with smaller rounds.

        After some rounds a bad row is alone in its round, and requests are small enough for the index.
        """
        self._has_failed |= isinstance(error, OpenSearchException)
        reason = str(error) if isinstance(error, IndexUnavailable) else logs.error_kind(error)
        log.warning("drain_postponed", lane=self._lane, rows=self._rows, reason=reason)
        self._rows = max(1, self._rows // 4)
        self._backoff.pause()
