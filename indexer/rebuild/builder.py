"""A rebuild, as its recipe: a new index is made, written by every drain from then on, filled from the database, given
what it missed, verified, and read. Each step is short, may be repeated, and is found in the generation's row by
whichever worker comes next (`docs/decisions/0011-online-rebuilds.md`).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import NamedTuple

import sqlalchemy as sa
import structlog

from indexer.drain.bulk import IndexUnavailable, refresh
from indexer.rebuild import fill, refill, transitions
from indexer.verify import ranges
from indexer.verify.compare import Comparison, Scope, compare_ranges, index_of
from indexer.verify.pool import ComparisonPool
from infra import logs
from infra.backoff import Backoff
from infra.database.engine import open_engine
from infra.database.rows import select_list
from infra.index import mapping
from infra.index.client import open_client, open_writer
from infra.settings import Settings

log = structlog.get_logger()

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 5.0
ROWS = 2000
"""Documents of a page."""
LOOK_SECONDS = 0.02
LATE_MS = 250
"""Live changes older than this are waited for, up to `GIVE_WAY_SECONDS` after each page."""
GIVE_WAY_SECONDS = 2.0
VERIFY_SECONDS = 2.0
"""Of a verification at a time: a worker that is to end waits for no more than that."""
STEWARD = 0x73746577

ROLLBACK = sa.text("SELECT id FROM generations WHERE state = 'kept' AND wanted = 'rollback'")
TO_DO = sa.text("""
    SELECT EXISTS (SELECT FROM generations WHERE state = 'kept' AND keep_until <= now() AND wanted IS NULL) AS expiry,
        EXISTS (SELECT FROM generations WHERE state = 'dropped' AND removed_at IS NULL) AS removal""")
MISSES = sa.text("SELECT EXISTS (SELECT FROM generation_misses WHERE generation_id = :id)")
MOVE = sa.text("""
    UPDATE generations SET phase = :phase,
        verified_at = CASE WHEN :phase = 'swapping' THEN present() ELSE verified_at END
    WHERE id = :id AND state = 'refreshed'""")
# Of one that is to rest or to end, and of a range that another has verified, nothing is recorded.
VERIFIED = sa.text("""
    UPDATE generations SET verify_position = :last, differences = coalesce(differences, 0) + :differences
    WHERE id = :id AND phase = 'verifying' AND wanted IS NULL AND NOT is_paused AND verify_position = :position
    RETURNING differences""")
# While the live index is gone nothing of it can be late.
LATE = sa.text("""
    SELECT EXISTS (
        SELECT FROM outbox WHERE lane = 'live' AND parked_at IS NULL AND retry_at IS NULL
            AND created_at < clock_timestamp() - :milliseconds * interval '1 millisecond')
    AND EXISTS (SELECT FROM generations WHERE state = 'live' AND lost_at IS NULL)""")


class Building(NamedTuple):
    id: int
    index_name: str
    phase: str
    is_paused: bool
    wanted: str | None
    document_version: int
    is_verified: bool
    verify_position: str
    total: int


_COLUMNS = select_list(Building._fields, "g", is_verified="g.verified_at IS NOT NULL")
BUILDING = sa.text(f"SELECT {_COLUMNS} FROM generations g WHERE g.state IN ('filling', 'refreshed')")


class Builder:
    """Does what is to be done next, in short steps. One a process; any number of them work together."""

    def __init__(self, settings: Settings, name: str = "rebuild") -> None:
        self._engine = open_engine(settings, pool_size=3, name=name)
        self._writer, self._client = open_writer(settings), open_client(settings)
        self._pool = ComparisonPool(settings, self._engine, self._writer)
        self._prefix = settings.index_prefix
        self._rows = ROWS
        self._backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)

    def work(self, seconds: float) -> bool:
        """Go on for so long at the most; tell whether there is more to do at once. Never raises."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._backoff.is_pausing:
            try:
                if not self.step():
                    self._pool.stop_idle_processes()
                    return False
            except Exception as error:  # noqa: BLE001 (no fault of a library may end the worker)
                self._fail(error)
            else:
                self._backoff.reset()
                self._rows = min(ROWS, 2 * self._rows)
        return time.monotonic() >= until

    def close(self) -> None:
        self._pool.close()
        self._engine.dispose()
        self._writer.close()
        self._client.close()

    def step(self) -> bool:
        """One step of any kind; whether there was one."""
        building = self._building()
        if building and building.phase == "filling" and not building.is_paused and self._fill(building):
            return True
        with self._as_steward() as alone:
            if alone and self._advance():
                return True
        return self._refill(building)

    def _building(self) -> Building | None:
        with self._engine.connect() as connection:
            row = connection.execute(BUILDING).one_or_none()
        return None if row is None else Building._make(row)

    def _fill(self, building: Building) -> bool:
        """Write a page; whether there was one to be had."""
        started = time.monotonic()
        try:
            with self._engine.connect() as connection:
                if fill.fill(connection, self._writer, self._rows) is None:
                    return False
        except fill.RefusedError as error:
            transitions.abandon(self._engine, building.id, str(error))
        else:
            self._give_way(time.monotonic() - started)
        return True

    def _refill(self, building: Building | None) -> bool:
        """Give the generations beside the live one what they missed; whether there was anything."""
        with self._engine.connect() as connection:
            lacking = refill.lacking(connection)
        for generation in lacking:
            with self._engine.connect() as connection:
                done = refill.refill(connection, self._writer, generation, self._rows)
            if done.refused and building and building.id == generation.id:
                reason = f"{len(done.refused)} documents are refused: {next(iter(done.refused.values()))}"
                transitions.abandon(self._engine, generation.id, reason)
        return bool(lacking)

    def _give_way(self, seconds: float) -> None:
        """Leave the machine to live changes that are late: as long as the page took, or longer if it was short."""
        until = time.monotonic() + max(seconds, GIVE_WAY_SECONDS)
        with self._engine.connect() as connection:
            while time.monotonic() < until and connection.execute(LATE, {"milliseconds": LATE_MS}).scalar_one():
                connection.rollback()
                time.sleep(LOOK_SECONDS)

    @contextmanager
    def _as_steward(self) -> Iterator[bool]:
        """Whether this worker alone takes the steps that are not for many. The lock goes with its session, if the
        worker is killed, and after a while if it is frozen; two stewards would only do the same work twice.
        """
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("SET idle_session_timeout = '10min'"))
            alone = connection.execute(sa.text("SELECT pg_try_advisory_lock(:lock)"), {"lock": STEWARD}).scalar_one()
            try:
                yield alone
            finally:
                if alone:
                    connection.execute(sa.text("SELECT pg_advisory_unlock(:lock)"), {"lock": STEWARD})

    def _advance(self) -> bool:
        with self._engine.connect() as connection:
            to_do = connection.execute(TO_DO).one()
            rollback = connection.execute(ROLLBACK).scalar_one_or_none()
        if to_do.expiry:
            transitions.expire(self._engine)
        if to_do.expiry or to_do.removal:
            transitions.remove(self._engine, self._client, self._prefix)
        if rollback is not None:
            return transitions.swap(self._engine, self._client, self._prefix, rollback)
        building = self._building()
        if building is None:
            return False
        if building.wanted == "cancel":
            transitions.abandon(self._engine, building.id)
            return True
        # Older code cannot make its documents; a worker of the newer has to.
        if building.is_paused or building.document_version > mapping.DOCUMENT_VERSION:
            return False
        return self._next_phase(building)

    def _next_phase(self, building: Building) -> bool:
        match building.phase:
            case "requested":
                transitions.name(self._engine, self._client, self._prefix, building.id)
            case "creating":
                transitions.begin_filling(self._engine, self._client, self._prefix, building.id)
            case "filling":
                return transitions.full(self._engine, building.id)
            case "refilling":
                return self._refilled(building)
            case "verifying":
                self._verify(building)
            case "swapping":
                if transitions.swap(self._engine, self._client, self._prefix, building.id):
                    return True
                return self._move(building, "refilling")
        return True

    def _refilled(self, building: Building) -> bool:
        with self._engine.connect() as connection:
            if connection.execute(MISSES, {"id": building.id}).scalar_one():
                return False
        return self._move(building, "swapping" if building.is_verified else "verifying")

    def _verify(self, building: Building) -> None:
        """Compare for a moment, from where the last one was, and look after each range whether that is wanted still."""
        refresh(self._writer, building.index_name)
        position = building.verify_position
        for comparison in self._compared(building, time.monotonic() + VERIFY_SECONDS):
            values = {"id": building.id, "position": position, "last": comparison.last or position}
            with self._engine.begin() as connection:
                found = connection.execute(
                    VERIFIED, values | {"differences": len(comparison.differences)}
                ).scalar_one_or_none()
            if found is None:
                return
            if comparison.last is None:
                self._move(building, "swapping")
                if found:
                    transitions.abandon(self._engine, building.id, f"verification found {found} differences")
                return
            position = comparison.last

    def _compared(self, building: Building, until: float) -> Iterator[Comparison]:
        scope = Scope(index_of(self._engine, building.index_name), None)
        remaining = ranges.id_ranges(self._engine, None, building.verify_position, ranges.RANGE_ROWS)
        portion = takewhile(lambda _: time.monotonic() < until, remaining)
        yield from compare_ranges(portion, self._pool.submitter(scope, building.total))

    def _move(self, building: Building, phase: str) -> bool:
        with self._engine.begin() as connection:
            return bool(connection.execute(MOVE, {"id": building.id, "phase": phase}).rowcount)

    def _fail(self, error: Exception) -> None:
        """Smaller pages, after a while: the index may have too much to do, or one row be at fault."""
        reason = str(error) if isinstance(error, IndexUnavailable) else logs.error_kind(error)
        log.warning("rebuild_postponed", rows=self._rows, reason=reason)
        self._pool.stop_processes()
        self._rows = max(1, self._rows // 4)
        self._backoff.pause()
