"""Rebuild the index beside the live index, while clients write and read. The steps, by phase:

1. `requested`: a request has inserted the row of the new generation. Choose an unused index name.
2. `creating`: divide the table `consumers` into slices, and create the index. From here on the drains write every
   change to the new index too; a change not taken by the new index becomes a miss.
3. `filling`: write every consumer, page by page. Any number of workers do this together. Once every slice is done, the
   state becomes `refreshed`: the drains refresh the new index too.
4. `refilling`: write the missed changes again, until there is no miss.
5. `verifying`: compare the new index with the database, range by range. A difference fails the rebuild.
6. `swapping`: without misses, switch reads to the new index, and keep the previous index for a rollback. With misses,
   go back to step 4, and from there to step 6.

Each step is short and may be repeated. A worker reads the next step from the generation's row, so any worker continues
after a kill. Every worker takes steps 3 and 4. The leader, a single worker at a time, takes the remaining steps,
carries out rollbacks, and removes old generations. `docs/rebuild-states.md` has the diagram, and
`docs/decisions/0011-online-rebuilds.md` the reasons.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import NamedTuple, assert_never

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError

from indexer.drain.bulk import IndexUnavailable, refresh
from indexer.rebuild import fill, refill, transitions
from indexer.verify import ranges
from indexer.verify.compare import Comparison, Scope, compare_ranges, index_of
from indexer.verify.pool import ComparisonPool
from infra import logs
from infra.backoff import Backoff
from infra.database.engine import open_engine
from infra.database.floors import first_waiting
from infra.database.rows import select_list
from infra.index import mapping
from infra.index.client import open_client, open_writer
from infra.index.generations import BuildPhase, Pending
from infra.index.indices import SearchError
from infra.settings import Settings

log = structlog.get_logger()

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 5.0
ROWS = 2000
"""Documents of a page."""
LATE_MS = 250
"""Age from which a live change is late, so that the next page waits."""
YIELD_SECONDS = 2.0
"""Longest wait for late live changes after a page, unless the page itself took longer."""
POLL_SECONDS = 0.02
VERIFY_SECONDS = 2.0
"""Length of a verification step, and so the longest wait of a worker during shutdown."""
LEADER_LOCK = 0x73746577

ROLLBACK = sa.text("SELECT id FROM generations WHERE state = 'kept' AND wanted = 'rollback'")
OLD_GENERATIONS = sa.text("""
    SELECT EXISTS (SELECT FROM generations WHERE state = 'kept' AND keep_until <= now() AND wanted IS NULL) AS expired,
        EXISTS (SELECT FROM generations WHERE state = 'dropped' AND removed_at IS NULL) AS dropped""")
HAS_MISSES = sa.text("SELECT EXISTS (SELECT FROM generation_misses WHERE generation_id = :id)")
# While the live index is lost, no change can become searchable, so no change is late.
LATE = sa.text(f"""
    SELECT ({first_waiting("created_at", "'live'")}) < clock_timestamp() - :milliseconds * interval '1 millisecond'
    AND EXISTS (SELECT FROM generations WHERE state = 'live' AND lost_at IS NULL)""")


class Building(NamedTuple):
    """The generation being built."""

    id: int
    index_name: str
    phase: BuildPhase
    is_paused: bool
    pending: Pending | None
    document_version: int
    is_verified: bool
    verify_position: str
    """Ids up to here are verified."""
    total: int


_COLUMNS = select_list(Building._fields, "g", pending="g.wanted", is_verified="g.verified_at IS NOT NULL")
BUILDING = sa.text(f"SELECT {_COLUMNS} FROM generations g WHERE g.state IN ('filling', 'refreshed')")


class Builder:
    """Takes the steps of rebuilds: a single builder in each process, in any number of processes at the same time."""

    def __init__(self, settings: Settings, name: str = "rebuild") -> None:
        self._engine = open_engine(settings, pool_size=3, name=name)
        self._writer, self._client = open_writer(settings), open_client(settings)
        self._sender = ThreadPoolExecutor(fill.SENDERS, "rebuild-sender")
        self._pool = ComparisonPool(settings, self._engine, self._writer)
        self._prefix, self._replicas = settings.index_prefix, settings.index_replicas
        self._rows = ROWS
        self._backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._is_postponed = False

    def work(self, seconds: float) -> bool:
        """Take steps for at most `seconds`; return whether the next step can be taken at once. Never raises."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._backoff.is_pausing:
            try:
                if not self.step():
                    self._pool.stop_idle_processes()
                    return False
            except Exception as error:  # noqa: BLE001 (no fault of a library may end the worker)
                self._postpone(error)
            else:
                self._continue()
        return time.monotonic() >= until

    def close(self) -> None:
        self._pool.close()
        self._sender.shutdown()
        self._engine.dispose()
        self._writer.close()
        self._client.close()

    def step(self) -> bool:
        """Take a step; return False if there is no step to take."""
        building = self._building()
        if building and building.phase == "filling" and not building.is_paused and self._fill(building):
            return True
        with self._leadership() as is_leader:
            if is_leader and self._step_of_leader():
                return True
        return self._refill(building)

    def _building(self) -> Building | None:
        with self._engine.connect() as connection:
            row = connection.execute(BUILDING).one_or_none()
        return None if row is None else Building._make(row)

    def _fill(self, building: Building) -> bool:
        """Write a page; return False if no slice is free."""
        started = time.monotonic()
        try:
            with self._engine.connect() as connection:
                if not fill.write_page(connection, self._writer, self._sender, self._rows):
                    return False
        except fill.RefusedError as error:
            transitions.abandon(self._engine, building.id, str(error))
        else:
            self._wait_for_live_changes(time.monotonic() - started)
        return True

    def _wait_for_live_changes(self, page_seconds: float) -> None:
        """Leave the machine to late live changes, for as long as the page took, and for `YIELD_SECONDS` at least."""
        until = time.monotonic() + max(page_seconds, YIELD_SECONDS)
        with self._engine.connect() as connection:
            while time.monotonic() < until and connection.execute(LATE, {"milliseconds": LATE_MS}).scalar_one():
                connection.rollback()
                time.sleep(POLL_SECONDS)

    def _refill(self, building: Building | None) -> bool:
        """Write missed changes to the standby generations; return False if there are none."""
        with self._engine.connect() as connection:
            generations = refill.with_misses(connection)
        for generation in generations:
            with self._engine.connect() as connection:
                refused = refill.write_misses(connection, self._writer, generation, self._rows)
            if refused and building and building.id == generation.id:
                reason = f"{len(refused)} documents are refused: {next(iter(refused.values()))}"
                transitions.abandon(self._engine, generation.id, reason)
        return bool(generations)

    @contextmanager
    def _leadership(self) -> Iterator[bool]:
        """Hold the advisory lock of the leader; yield False if another worker is the leader.

        PostgreSQL releases the lock at the end of the session: at once when the worker is killed, and after 10 minutes
        when the worker hangs. Two leaders would only do the same work twice.
        """
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("SET idle_session_timeout = '10min'"))
            lock = {"lock": LEADER_LOCK}
            is_leader = connection.execute(sa.text("SELECT pg_try_advisory_lock(:lock)"), lock).scalar_one()
            try:
                yield is_leader
            finally:
                if is_leader:
                    connection.execute(sa.text("SELECT pg_advisory_unlock(:lock)"), lock)

    def _step_of_leader(self) -> bool:
        """Remove old generations, then take a step of a rollback or rebuild; return False if there is no step."""
        with self._engine.connect() as connection:
            old = connection.execute(OLD_GENERATIONS).one()
            rollback = connection.execute(ROLLBACK).scalar_one_or_none()
        if old.expired:
            transitions.expire(self._engine)
        if old.expired or old.dropped:
            transitions.remove_dropped(self._engine, self._client, self._prefix)
        if rollback is not None:
            return transitions.swap(self._engine, self._client, self._prefix, rollback)
        building = self._building()
        if building is None:
            return False
        if building.pending == "cancel":
            transitions.abandon(self._engine, building.id)
            return True
        # Older code cannot make the documents of a newer version: a worker with newer code continues.
        if building.is_paused or building.document_version > mapping.DOCUMENT_VERSION:
            return False
        return self._step_of_phase(building)

    def _step_of_phase(self, building: Building) -> bool:
        """Take the leader's step in the present phase; return False if the phase waits for the steps of all workers."""
        match building.phase:
            case "requested":
                transitions.choose_name(self._engine, self._client, self._prefix, building.id)
                return True
            case "creating":
                transitions.begin_filling(self._engine, self._client, self._prefix, building.id, self._replicas)
                return True
            case "filling":
                return transitions.end_filling(self._engine, building.id)
            case "refilling":
                return self._end_refilling(building)
            case "verifying":
                self._verify(building)
                return True
            case "swapping":
                return self._swap(building)
            case unknown:
                assert_never(unknown)

    def _end_refilling(self, building: Building) -> bool:
        with self._engine.connect() as connection:
            if connection.execute(HAS_MISSES, {"id": building.id}).scalar_one():
                return False
        return transitions.move(self._engine, building.id, "swapping" if building.is_verified else "verifying")

    def _verify(self, building: Building) -> None:
        """Compare ranges for `VERIFY_SECONDS`, and record each range; stop when the rebuild is paused or cancelled."""
        refresh(self._writer, building.index_name)
        position = building.verify_position
        for comparison in self._compared(building, time.monotonic() + VERIFY_SECONDS):
            differences = transitions.record_verified(
                self._engine, building.id, position, comparison.last, len(comparison.differences)
            )
            if differences is None:
                return
            if comparison.last is None:
                # With differences the phase is never `swapping`: after a kill, the next worker would swap.
                if differences:
                    transitions.abandon(self._engine, building.id, f"verification found {differences} differences")
                else:
                    transitions.move(self._engine, building.id, "swapping")
                return
            position = comparison.last

    def _compared(self, building: Building, until: float) -> Iterator[Comparison]:
        scope = Scope(index_of(self._engine, building.index_name), None)
        remaining = ranges.id_ranges(self._engine, None, building.verify_position, ranges.RANGE_ROWS)
        ranges_in_time = takewhile(lambda _: time.monotonic() < until, remaining)
        yield from compare_ranges(ranges_in_time, self._pool.submitter(scope, building.total))

    def _swap(self, building: Building) -> bool:
        """Switch reads; if the generation is not ready, for example because of a miss, go back to `refilling`."""
        if transitions.swap(self._engine, self._client, self._prefix, building.id):
            return True
        return transitions.move(self._engine, building.id, "refilling")

    def _continue(self) -> None:
        """Forget the last failure, after a step without a failure."""
        self._backoff.reset()
        self._rows = min(ROWS, 2 * self._rows)
        if self._is_postponed:
            transitions.record_postponed(self._engine, None)
            self._is_postponed = False

    def _postpone(self, error: Exception) -> None:
        """Pause, then continue with smaller pages: the index may be overloaded, or a single row may be at fault."""
        reason = str(error) if isinstance(error, (IndexUnavailable, SearchError)) else logs.error_kind(error)
        log.warning("rebuild_postponed", rows=self._rows, reason=reason)
        self._pool.stop_processes()
        self._rows = max(1, self._rows // 4)
        self._backoff.pause()
        # Without the database the status cannot be read either.
        with suppress(DBAPIError):
            transitions.record_postponed(self._engine, reason)
            self._is_postponed = True
