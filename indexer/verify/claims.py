"""Claim, record, release and end runs: the writes to the table `verifications`.

A worker claims a run for a moment, then releases the run. Each recorded range renews the heartbeat. If a claim has no
heartbeat for `LOST_SECONDS`, its worker was killed: another worker claims the run and continues from the recorded
position. Claims of a run are numbered, and a worker with an old number cannot record anything.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from indexer.verify.compare import Comparison
from indexer.verify.suspects import ConfirmedDifference
from infra.operations.reindex import ReindexScope
from infra.operations.verify import MAX_STORED_DIFFERENCES, RunKind

LOST_SECONDS = 30

CLAIM = sa.text("""
    UPDATE verifications v SET claim = v.claim + 1, state = 'running', heartbeat_at = clock_timestamp(),
        started_at = coalesce(v.started_at, clock_timestamp()), attempts = v.attempts + 1,
        index_name = coalesce(v.index_name, (SELECT index_name FROM generations WHERE state = 'live'))
    WHERE id = (
        SELECT id FROM verifications WHERE finished_at IS NULL AND kind = ANY(:kinds)
            AND (heartbeat_at IS NULL OR heartbeat_at < clock_timestamp() - :lost * interval '1 second')
        ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, kind, environment_id, repairs, scope, epoch, index_name, total, position, compared, in_flight, causes,
        mended, claim, attempts""")
COUNT = sa.text("""
    UPDATE verifications SET total = (
        SELECT count(*) FROM consumers
        WHERE CAST(:environment_id AS int) IS NULL OR environment_id = :environment_id)
    WHERE id = :id RETURNING total""")
SET_TOTAL = sa.text("UPDATE verifications SET total = :total WHERE id = :id")
RECORD = sa.text("""
    UPDATE verifications SET position = :position, compared = :compared, in_flight = :in_flight, causes = :causes,
        mended = :mended, heartbeat_at = clock_timestamp(), attempts = 0, error = NULL
    WHERE id = :id AND claim = :claim AND finished_at IS NULL""").bindparams(sa.bindparam("causes", type_=sa.JSON))
STORE_DIFFERENCE = sa.text("""
    INSERT INTO differences (verification_id, document_id, cause, environment_id, database_version, index_version)
    VALUES (:run, :document_id, :cause, :environment_id, :database_version, :index_version) ON CONFLICT DO NOTHING""")
RELEASE = sa.text("UPDATE verifications SET heartbeat_at = NULL, error = :error WHERE id = :id AND claim = :claim")
END = sa.text("""
    UPDATE verifications SET state = :state, error = :error, finished_at = clock_timestamp()
    WHERE id = :id AND claim = :claim AND finished_at IS NULL""")


class ClaimLost(Exception):  # noqa: N818 (names what happened to the claim, as the caller treats it)
    """Another worker has claimed the run."""


class ClaimedRun(msgspec.Struct, kw_only=True):
    """A run claimed by this worker, with the progress recorded since."""

    id: int
    kind: RunKind
    environment_id: int | None
    repairs: int | None
    scope: ReindexScope | None
    epoch: int | None
    """Of a run of kind `fork`: the number of the epoch that began."""
    index_name: str | None
    total: int | None
    position: str
    compared: int
    in_flight: int
    causes: dict[str, int]
    mended: int
    claim: int
    attempts: int

    @property
    def differences(self) -> int:
        return sum(self.causes.values())

    def add(self, comparison: Comparison) -> list[ConfirmedDifference]:
        """Add the result of a comparison, and return the differences to store."""
        storable = max(0, MAX_STORED_DIFFERENCES - self.differences)
        self.position = comparison.last or self.position
        self.compared += comparison.compared
        self.in_flight += comparison.in_flight
        for difference in comparison.differences:
            self.causes[difference.cause] = self.causes.get(difference.cause, 0) + 1
        return comparison.differences[:storable]


def claim(engine: sa.Engine, kinds: Sequence[RunKind]) -> ClaimedRun | None:
    """Claim the oldest unfinished run of some kinds without a living worker; None if there is no such run."""
    with engine.begin() as connection:
        row = connection.execute(CLAIM, {"kinds": list(kinds), "lost": LOST_SECONDS}).one_or_none()
        if row is None:
            return None
        run = msgspec.convert(row, ClaimedRun, from_attributes=True)
        if run.total is None and run.scope is None and run.epoch is None:
            run.total = connection.execute(COUNT, {"id": run.id, "environment_id": run.environment_id}).scalar_one()
        return run


def set_total(connection: sa.Connection, run: ClaimedRun, total: int) -> None:
    """Record how many consumers a reindex has chosen."""
    run.total = total
    connection.execute(SET_TOTAL, {"id": run.id, "total": total})


def record(connection: sa.Connection, run: ClaimedRun, *, is_done: bool) -> None:
    """Record the progress of a run and renew the heartbeat; with `is_done`, end the run.

    Raises:
        ClaimLost: another worker has claimed the run. The caller must roll back.
    """
    columns = ("id", "claim", "position", "compared", "in_flight", "causes", "mended")
    if not connection.execute(RECORD, {name: getattr(run, name) for name in columns}).rowcount:
        raise ClaimLost
    if is_done:
        connection.execute(END, {"id": run.id, "claim": run.claim, "state": "done", "error": None})


def store_differences(connection: sa.Connection, run: ClaimedRun, differences: Sequence[ConfirmedDifference]) -> None:
    """Store differences of a run."""
    if differences:
        connection.execute(STORE_DIFFERENCE, [_difference_row(run, difference) for difference in differences])


def release(engine: sa.Engine, run: ClaimedRun, error: str | None = None) -> None:
    """Release a run: any worker can continue at once. `error` says why the run did not advance."""
    with engine.begin() as connection:
        connection.execute(RELEASE, {"id": run.id, "claim": run.claim, "error": error})


def fail(engine: sa.Engine, run: ClaimedRun, error: str) -> None:
    """End a run as failed."""
    with engine.begin() as connection:
        connection.execute(END, {"id": run.id, "claim": run.claim, "state": "failed", "error": error})


def _difference_row(run: ClaimedRun, difference: ConfirmedDifference) -> dict[str, Any]:
    return {
        "run": run.id,
        # PostgreSQL cannot store NUL in text.
        "document_id": difference.id.replace("\0", "\ufffd"),
        "cause": difference.cause,
        "environment_id": difference.environment_id,
        "database_version": difference.database_version,
        "index_version": difference.index_version,
    }
