"""Runs: verifications of the index, repairs, reindexes, and rounds of the watch, as rows of `verifications`.

This module requests runs and reads their progress and results; `indexer/verify/runs.py` executes the runs.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import msgspec
import sqlalchemy as sa

from infra.errors import ExplainedError

RunKind: TypeAlias = Literal["verify", "repair", "watch", "reindex", "fork"]
RunState: TypeAlias = Literal["requested", "running", "done", "failed"]
Cause: TypeAlias = Literal["missing", "stale", "ahead", "resurrected", "foreign", "content"]
CAUSES: tuple[Cause, ...] = get_args(Cause)

MAX_STORED_DIFFERENCES = 10_000
"""Differences of a run stored with id and cause. Further differences are only counted."""
KEPT_RUNS = 50
"""Runs kept of each kind."""

_RUN = """
    SELECT v.id, v.kind, v.state, org.name || ':' || e.mode AS environment, v.repairs, v.index_name, v.total,
        v.compared, v.in_flight, v.causes, v.mended, v.error, v.requested_at, v.started_at, v.finished_at,
        v.scope - 'ids' - 'environmentId' - 'filter'
            || CASE WHEN v.scope ? 'filter' THEN '{"hasFilter": true}' ELSE '{}' END::jsonb AS scope,
        extract(epoch FROM coalesce(v.finished_at, clock_timestamp()) - v.started_at)::float8 AS seconds
    FROM verifications v LEFT JOIN environments e ON e.id = v.environment_id
    LEFT JOIN organizations org ON org.id = e.organization_id"""
RUN = sa.text(f"{_RUN} WHERE v.id = :id")
LATEST = sa.text(f"{_RUN} WHERE v.kind = ANY(:kinds) ORDER BY v.id DESC LIMIT :rows")
LAST_DONE = sa.text(f"""
    {_RUN} WHERE v.id IN (
        SELECT DISTINCT ON (kind = 'watch') id FROM verifications
        WHERE state = 'done' AND kind NOT IN ('reindex', 'fork')
        ORDER BY kind = 'watch', finished_at DESC)
    ORDER BY v.kind = 'watch'""")
UNFINISHED = sa.text(f"{_RUN} WHERE v.finished_at IS NULL AND v.kind <> 'watch' ORDER BY v.id")
# While a run waits for a worker, an equal request gets the same run.
REQUESTED = sa.text("""
    SELECT id FROM verifications WHERE state = 'requested' AND kind = :kind
        AND environment_id IS NOT DISTINCT FROM :environment_id AND repairs IS NOT DISTINCT FROM :repairs
        AND scope IS NOT DISTINCT FROM CAST(:scope AS jsonb) LIMIT 1""")
REQUEST = sa.text("""
    INSERT INTO verifications (kind, environment_id, repairs, scope)
    VALUES (:kind, :environment_id, :repairs, CAST(:scope AS jsonb)) RETURNING id""")
DELETE_OLD = sa.text("""
    DELETE FROM verifications WHERE finished_at IS NOT NULL AND id NOT IN (
        SELECT id FROM verifications WHERE kind = :kind ORDER BY id DESC LIMIT :kept) AND kind = :kind""")
DIFFERENCES = sa.text("""
    SELECT d.document_id, d.cause, org.name || ':' || e.mode AS environment, d.database_version, d.index_version,
        d.found_at
    FROM differences d LEFT JOIN environments e ON e.id = d.environment_id
    LEFT JOIN organizations org ON org.id = e.organization_id
    WHERE d.verification_id = :id ORDER BY d.document_id LIMIT :rows""")
# The differences found by the last complete comparison, and by the watch since then.
KNOWN = sa.text("""
    WITH last AS (
        SELECT * FROM verifications
        WHERE state = 'done' AND environment_id IS NULL AND repairs IS NULL AND kind NOT IN ('reindex', 'fork')
        ORDER BY finished_at DESC LIMIT 1)
    SELECT d.cause, count(*) AS documents FROM differences d JOIN verifications v ON v.id = d.verification_id
    WHERE (d.verification_id = (SELECT id FROM last) AND v.kind <> 'repair')
        OR (v.kind = 'watch' AND v.finished_at IS NULL
            AND d.found_at > coalesce((SELECT finished_at FROM last), '-infinity'))
    GROUP BY d.cause""")


class VerificationError(ExplainedError):
    """The request cannot be carried out. The message is a single line, for the caller."""


class Run(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A verification, repair, watch round or reindex, with progress and result."""

    id: int
    """The number of the run."""
    kind: RunKind
    """`verify` compares; `repair` also rewrites the differences; `watch` compares all the time, a few consumers every
    few seconds; `reindex` rewrites chosen consumers and compares nothing; `fork` compares and rewrites documents of
    writes that were lost in a fail-over or restore of the database."""
    state: RunState
    """The state of the run."""
    environment: str | None
    """Organization and mode, such as `shop:live`; null: all environments."""
    repairs: int | None
    """The id of the run to repair; null: a repair compares for itself."""
    scope: dict[str, Any] | None
    """The consumers a reindex was limited to, without their ids and without the text of the filter, which may hold
    personal data."""
    index_name: str | None
    """The name of the index in OpenSearch; null before the start."""
    total: int | None
    """Consumers at the start of the run; for a reindex, the consumers chosen."""
    compared: int
    """Consumers compared so far; for a reindex, consumers added to the outbox."""
    in_flight: int
    """Documents not compared, because a change was on the way to the index."""
    differences: int
    """Documents found to differ."""
    causes: dict[str, int]
    """Documents found to differ, by cause."""
    mended: int
    """Differences that the run removed."""
    error: str | None
    """Why the run failed, or why the run waits."""
    requested_at: datetime
    """Time of the request."""
    started_at: datetime | None
    """Time of the start; null before."""
    finished_at: datetime | None
    """Time of the end; null before."""
    seconds: float | None
    """From the start to the end, or to now."""

    example: ClassVar[dict[str, Any]] = {
        "id": 12,
        "kind": "verify",
        "state": "done",
        "environment": None,
        "repairs": None,
        "scope": None,
        "indexName": "consumers-000001",
        "total": 1000000,
        "compared": 1000000,
        "inFlight": 3,
        "differences": 1,
        "causes": {"stale": 1},
        "mended": 0,
        "error": None,
        "requestedAt": "2024-11-01T10:00:00.000Z",
        "startedAt": "2024-11-01T10:00:00.000Z",
        "finishedAt": "2024-11-01T10:00:00.000Z",
        "seconds": 28.4,
    }

    @property
    def is_over(self) -> bool:
        return self.finished_at is not None

    @property
    def agrees(self) -> bool:
        """Whether the run is done and left no difference unrepaired."""
        return self.state == "done" and self.differences == self.mended


class Difference(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A document found to differ from the row, as stored with the run."""

    document_id: str
    """The id of the document, which is that of the consumer."""
    cause: Cause
    """How the document differs."""
    environment: str | None
    """Organization and mode, such as `shop:live`; null if unknown."""
    database_version: int | None
    """The version in the database; null without a row."""
    index_version: int | None
    """The version in the index; null without a document."""
    found_at: datetime
    """Time of the comparison."""

    example: ClassVar[dict[str, Any]] = {
        "documentId": "cons_01JBK3Q8X5W5V0B6T1R2M3N4P5",
        "cause": "stale",
        "environment": "shop:live",
        "databaseVersion": 1048578,
        "indexVersion": 1048577,
        "foundAt": "2024-11-01T10:00:00.000Z",
    }


def request_run(
    connection: sa.Connection,
    kind: RunKind,
    *,
    environment_id: int | None = None,
    repairs: int | None = None,
    scope: str | None = None,
) -> int:
    """Request a run and return the id. If an equal run waits for a worker, return the id of the waiting run.

    Args:
        connection: in a transaction.
        kind: of the run.
        environment_id: limit the run to this environment.
        repairs: the id of a run; repair only the stored differences of this run.
        scope: of a reindex, as JSON.

    Raises:
        VerificationError: the differences of the run to repair are not stored, or not completely.
    """
    if repairs is not None:
        _check_repairable(connection, repairs)
    values = {"kind": kind, "environment_id": environment_id, "repairs": repairs, "scope": scope}
    requested: int | None = connection.execute(REQUESTED, values).scalar_one_or_none()
    if requested is not None:
        return requested
    delete_old_runs(connection, kind)
    run_id: int = connection.execute(REQUEST, values).scalar_one()
    return run_id


def delete_old_runs(connection: sa.Connection, kind: RunKind) -> None:
    """Delete the finished runs of a kind, with differences, except the latest `KEPT_RUNS`."""
    connection.execute(DELETE_OLD, {"kind": kind, "kept": KEPT_RUNS})


def _check_repairable(connection: sa.Connection, run_id: int) -> None:
    run = find_run(connection, run_id)
    if run is None:
        raise VerificationError(f"there is no run {run_id}")
    if run.kind == "reindex":
        raise VerificationError(f"run {run_id} is a reindex and found no differences: give a run of verify or repair")
    if run.state != "done":
        raise VerificationError(f"run {run_id} is {run.state}, not done: only a run that is done can be repaired")
    if run.differences > MAX_STORED_DIFFERENCES:
        raise VerificationError(
            f"run {run_id} found {run.differences} differences, of which {MAX_STORED_DIFFERENCES} are stored: "
            "repair without a run"
        )


def find_run(connection: sa.Connection, run_id: int) -> Run | None:
    """Return a run; None if no run has this id, or the run was deleted."""
    row = connection.execute(RUN, {"id": run_id}).mappings().one_or_none()
    return None if row is None else _run(row)


def latest_runs(
    connection: sa.Connection, rows: int, kinds: Sequence[RunKind] = ("verify", "repair", "watch", "fork")
) -> list[Run]:
    """Return the last `rows` runs of some kinds, the latest first."""
    return [_run(row) for row in connection.execute(LATEST, {"rows": rows, "kinds": list(kinds)}).mappings()]


def last_completed(connection: sa.Connection) -> list[Run]:
    """Return the last completed comparison on request and the last completed round of the watch, if any."""
    return [_run(row) for row in connection.execute(LAST_DONE).mappings()]


def unfinished_runs(connection: sa.Connection) -> list[Run]:
    """Return the unfinished runs on request, the earliest first."""
    return [_run(row) for row in connection.execute(UNFINISHED).mappings()]


def stored_differences(connection: sa.Connection, run_id: int, rows: int) -> list[Difference]:
    """Return the first `rows` differences of a run, ordered by document id; at most `MAX_STORED_DIFFERENCES` exist."""
    differences = connection.execute(DIFFERENCES, {"id": run_id, "rows": rows})
    return [msgspec.convert(row, Difference, from_attributes=True) for row in differences]


def known_differences(connection: sa.Connection) -> dict[str, int]:
    """Count, by cause, the differences found by the last complete comparison and by the watch since then."""
    documents = {row.cause: row.documents for row in connection.execute(KNOWN)}
    return {cause: documents.get(cause, 0) for cause in CAUSES}


def _run(row: sa.RowMapping) -> Run:
    return Run(**row, differences=sum(row["causes"].values()))
