"""Execute runs: requested verifications, repairs and reindexes, and the rounds of the watch.

Any worker executes any run, for a moment at a time, from the position recorded last (`claims.py`). So a run does not
occupy a worker, and continues when a worker is killed.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, repeat, takewhile
from typing import Any, Self, TypeAlias

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import NotFoundError
from sqlalchemy.exc import DBAPIError

from indexer.drain.bulk import IndexUnavailable
from indexer.verify import claims, fork, reindex, suspects
from indexer.verify.claims import ClaimedRun, ClaimLost
from indexer.verify.compare import Comparison, Scope, compare_ranges, index_of
from indexer.verify.pool import THREADS, ComparisonPool
from indexer.verify.ranges import RANGE_ROWS, id_ranges
from indexer.verify.repair import repair
from infra import logs
from infra.database.engine import open_engine
from infra.index import naming
from infra.index.client import open_writer
from infra.operations.reindex import ReindexScope
from infra.operations.verify import RunKind, delete_old_runs, request_run
from infra.settings import Settings

log = structlog.get_logger()

MAX_ATTEMPTS = 60
"""A run fails after this many attempts in a row without progress, at an attempt a second."""
WATCH_ROWS = 1_000
"""Consumers compared by the watch at a time."""
ROUND_SECONDS = 60
"""Shortest time between the starts of two rounds of the watch: in a small database, a round takes a few seconds."""
REQUESTED_KINDS: tuple[RunKind, ...] = ("verify", "repair", "reindex")

STORED = sa.text("""
    SELECT document_id FROM differences WHERE verification_id = :id AND document_id > :after
    ORDER BY document_id LIMIT :rows""")
START_WATCH = sa.text("""
    INSERT INTO verifications (kind) SELECT 'watch' WHERE NOT EXISTS (
        SELECT FROM verifications
        WHERE kind = 'watch' AND requested_at > clock_timestamp() - :seconds * interval '1 second'
            AND requested_at <= clock_timestamp())
    ON CONFLICT DO NOTHING""")

Portion: TypeAlias = Callable[[Iterable[Any]], Iterable[Any]]
"""Limits the remaining ranges or pages to the portion to do now."""


class Runner:
    """Executes runs in this process."""

    def __init__(self, engine: sa.Engine, client: OpenSearch, alias: str, pool: ComparisonPool) -> None:
        """Take the resources.

        Args:
            engine: with room for `THREADS` + 1 connections.
            client: must return JSON text.
            alias: the read alias of the index.
            pool: compares the ranges.
        """
        self.engine, self.client, self.alias = engine, client, alias
        self._pool = pool

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Return a runner with new resources, open until the process ends."""
        engine, client = open_engine(settings, pool_size=THREADS + 1, name="verify"), open_writer(settings)
        return cls(engine, client, naming.read_alias(settings.index_prefix), ComparisonPool(settings, engine, client))

    def work(self, seconds: float) -> bool:
        """Continue a requested run for about `seconds`; return whether there may be more to do at once.

        Never raises if database or index cannot be used: the run continues later, or fails in the end.
        """
        until = time.monotonic() + seconds

        def portion(portions: Iterable[Any]) -> Iterable[Any]:
            return takewhile(lambda _: time.monotonic() < until, portions)

        # Before all other runs. A run that only waits for late writes is continued by the next wake-up.
        self._advance(("fork",), portion, RANGE_ROWS)
        advanced = self._advance(REQUESTED_KINDS, portion, RANGE_ROWS)
        if not advanced:
            self._pool.stop_idle_processes()
        return advanced

    def watch(self) -> None:
        """Compare the next `WATCH_ROWS` consumers. A new round begins after the last, once a minute at most."""
        try:
            with self.engine.begin() as connection:
                if connection.execute(START_WATCH, {"seconds": ROUND_SECONDS}).rowcount:
                    delete_old_runs(connection, "watch")
        except DBAPIError as error:
            log.warning("run_postponed", reason=logs.error_kind(error))
            return
        self._advance(("watch",), lambda ranges: islice(ranges, 1), WATCH_ROWS)

    def _advance(self, kinds: Sequence[RunKind], portion: Portion, rows: int) -> bool:
        """Claim a run and execute a portion; return whether the run advanced."""
        try:
            run = claims.claim(self.engine, kinds)
        except DBAPIError as error:
            log.warning("run_postponed", reason=logs.error_kind(error))
            return False
        if run is None:
            return False
        try:
            self._execute(run, portion, rows)
        except ClaimLost:
            log.warning("run_taken_over", run=run.id)
            return False
        except Exception as error:  # noqa: BLE001 (after any error the run is released, or fails)
            self._pool.stop_processes()
            self._postpone(run, error)
            return False
        return True

    def _execute(self, run: ClaimedRun, portion: Portion, rows: int) -> None:
        if run.index_name is None:
            claims.fail(self.engine, run, "there is no live index")
        elif run.scope is not None:
            self._reindex(run, run.scope, portion)
        elif run.epoch is not None:
            self._compare_fork(run, run.epoch, run.index_name, portion)
        else:
            self._compare(run, run.index_name, portion, rows)

    def _compare(self, run: ClaimedRun, index_name: str, portion: Portion, rows: int) -> None:
        scope = Scope(index_of(self.engine, index_name), run.environment_id)
        if run.repairs is not None:
            comparisons = self._stored_suspects(run, scope)
        else:
            # The watch compares a single range at a time: too little to start processes for.
            consumers = rows if run.kind == "watch" else run.total or 0
            ranges = id_ranges(self.engine, run.environment_id, run.position, rows)
            comparisons = compare_ranges(portion(ranges), self._pool.submitter(scope, consumers))
        for comparison in comparisons:
            self._record(run, index_name, comparison)
            if comparison.last is None:
                # The watch begins its rounds anew for ever, every minute in a small database.
                write_line = log.debug if run.kind == "watch" and not run.causes else log.info
                write_line("run_done", run=run.id, kind=run.kind, consumers=run.compared, **run.causes)
                return
        claims.release(self.engine, run)

    def _compare_fork(self, run: ClaimedRun, epoch: int, index_name: str, portion: Portion) -> None:
        """Compare the documents written after a fork. After lost changes, request a repair of the whole index."""
        with self.engine.connect() as connection:
            begun = fork.read(connection, epoch, index_name)
        if not run.position:
            log.warning("epoch_began", epoch=epoch, reason=begun.reason, run=run.id)
        compared_index = index_of(self.engine, index_name)
        pages = fork.comparisons(self.engine, self.client, compared_index, begun, run.position)
        # The limit is checked before each page, so every turn records at least one.
        for _, comparison in zip(portion(repeat(None)), pages, strict=False):
            self._record(run, index_name, comparison)
            if comparison.last is None:
                log.info("run_done", run=run.id, kind=run.kind, consumers=run.compared, **run.causes)
                if begun.may_have_lost_changes or run.differences:
                    with self.engine.begin() as connection:
                        request_run(connection, "repair")
                        delete_old_runs(connection, "fork")
                return
        claims.release(self.engine, run)

    def _stored_suspects(self, run: ClaimedRun, scope: Scope) -> Iterator[Comparison]:
        """Treat the stored differences of the run `run.repairs` as suspects, and confirm the remaining differences."""
        after: str | None = run.position
        while after is not None:
            values = {"id": run.repairs, "after": after, "rows": suspects.BATCH}
            with self.engine.connect() as connection:
                ids = list(connection.execute(STORED, values).scalars())
            confirmed = suspects.confirm(self.engine, self.client, scope.compared_index, ids)
            after = ids[-1] if len(ids) == suspects.BATCH else None
            yield Comparison(after, len(ids), confirmed.in_flight, confirmed.differences)

    def _record(self, run: ClaimedRun, index_name: str, comparison: Comparison) -> None:
        """Record the progress and, if the run is a repair, repair the differences in the same transaction."""
        to_store = run.add(comparison)
        with self.engine.begin() as connection:
            if run.kind in {"repair", "fork"} and comparison.differences:
                run.mended += repair(connection, self.client, index_name, comparison.differences)
            claims.record(connection, run, is_done=comparison.last is None)
            claims.store_differences(connection, run, to_store)
        for difference in to_store:
            log.warning("index_differs", run=run.id, cause=difference.cause, document=difference.id[:64])

    def _reindex(self, run: ClaimedRun, scope: ReindexScope, portion: Portion) -> None:
        if run.total is None:
            with self.engine.begin() as connection:
                total = reindex.count_chosen(connection, self.client, self.alias, scope)
                claims.set_total(connection, run, total)
        for page in portion(reindex.pages(self.engine, self.client, self.alias, scope, run.position)):
            is_done = page.range.last is None
            with self.engine.begin() as connection:
                run.compared += reindex.append(connection, scope, page)
                run.position = page.range.last or run.position
                claims.record(connection, run, is_done=is_done)
            if is_done:
                log.info("run_done", run=run.id, kind=run.kind, consumers=run.compared)
                return
        claims.release(self.engine, run)

    def _postpone(self, run: ClaimedRun, error: Exception) -> None:
        """Release the run for an attempt in a second; after `MAX_ATTEMPTS`, or if the index is gone, fail the run."""
        reason = str(error) if isinstance(error, IndexUnavailable) else logs.error_kind(error)
        log.warning("run_postponed", run=run.id, reason=reason)
        try:
            # Nothing else would find the documents of lost changes soon.
            is_last_attempt = run.attempts >= MAX_ATTEMPTS and run.kind != "fork"
            if is_last_attempt or isinstance(error, NotFoundError):
                claims.fail(self.engine, run, reason)
            else:
                claims.release(self.engine, run, reason)
        except DBAPIError as failure:
            log.warning("run_postponed", run=run.id, reason=logs.error_kind(failure))
