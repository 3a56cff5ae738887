"""Verifications of the index, and other work of its kind: asked for and told of here, worked on in
`indexer/verify/runs.py`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec
import sqlalchemy as sa

Kind: TypeAlias = Literal["verify", "repair", "watch", "reindex"]
State: TypeAlias = Literal["requested", "running", "done", "failed"]
Cause: TypeAlias = Literal["missing", "stale", "ahead", "resurrected", "foreign", "content"]
CAUSES: tuple[Cause, ...] = ("missing", "stale", "ahead", "resurrected", "foreign", "content")

KEPT = 10_000
"""Differences of a run that are kept; all are counted."""
RUNS = 50
"""Runs of each kind that are kept."""

_RUN = """
    SELECT v.id, v.kind, v.state, org.name || ':' || e.mode AS environment, v.repairs, v.index_name, v.total,
        v.compared, v.in_flight, v.causes, v.mended, v.error, v.requested_at, v.started_at, v.finished_at,
        v.scope - 'ids' - 'environmentId' AS scope,
        extract(epoch FROM coalesce(v.finished_at, clock_timestamp()) - v.started_at)::float8 AS seconds
    FROM verifications v LEFT JOIN environments e ON e.id = v.environment_id
    LEFT JOIN organizations org ON org.id = e.organization_id"""
RUN = sa.text(f"{_RUN} WHERE v.id = :id")
LATEST = sa.text(f"{_RUN} WHERE v.kind = ANY(:kinds) ORDER BY v.id DESC LIMIT :rows")
LAST_DONE = sa.text(f"""
    {_RUN} WHERE v.id IN (
        SELECT DISTINCT ON (kind = 'watch') id FROM verifications WHERE state = 'done' AND kind <> 'reindex'
        ORDER BY kind = 'watch', finished_at DESC)
    ORDER BY v.kind = 'watch'""")
RUNNING = sa.text(f"{_RUN} WHERE v.finished_at IS NULL AND v.kind <> 'watch' ORDER BY v.id")
# Two that ask for the same before anybody has begun get the same.
WAITING = sa.text("""
    SELECT id FROM verifications WHERE state = 'requested' AND kind = :kind
        AND environment_id IS NOT DISTINCT FROM :environment_id AND repairs IS NOT DISTINCT FROM :repairs
        AND scope IS NOT DISTINCT FROM CAST(:scope AS jsonb) LIMIT 1""")
REQUEST = sa.text("""
    INSERT INTO verifications (kind, environment_id, repairs, scope)
    VALUES (:kind, :environment_id, :repairs, CAST(:scope AS jsonb)) RETURNING id""")
CLEAR = sa.text("""
    DELETE FROM verifications WHERE finished_at IS NOT NULL AND id NOT IN (
        SELECT id FROM verifications WHERE kind = :kind ORDER BY id DESC LIMIT :runs) AND kind = :kind""")
DIFFERENCES = sa.text("""
    SELECT d.document_id, d.cause, org.name || ':' || e.mode AS environment, d.database_version, d.index_version,
        d.found_at
    FROM differences d LEFT JOIN environments e ON e.id = d.environment_id
    LEFT JOIN organizations org ON org.id = e.organization_id
    WHERE d.verification_id = :id ORDER BY d.document_id LIMIT :rows""")
# What the last comparison of everything found, and what the watch has found since.
KNOWN = sa.text("""
    WITH last AS (
        SELECT * FROM verifications
        WHERE state = 'done' AND environment_id IS NULL AND repairs IS NULL AND kind <> 'reindex'
        ORDER BY finished_at DESC LIMIT 1)
    SELECT d.cause, count(*) AS found FROM differences d JOIN verifications v ON v.id = d.verification_id
    WHERE (d.verification_id = (SELECT id FROM last) AND v.kind <> 'repair')
        OR (v.kind = 'watch' AND v.finished_at IS NULL
            AND d.found_at > coalesce((SELECT finished_at FROM last), '-infinity'))
    GROUP BY d.cause""")


class VerificationError(Exception):
    """What was asked for cannot be done; the message is one line for the person who asked."""


class Run(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A comparison of the index with the database, or a reindex."""

    id: int
    kind: Kind
    """`repair` mends what it finds; `watch` goes on all the time, a little each few seconds; `reindex`
    compares nothing."""
    state: State
    environment: str | None
    """Organization and mode; null: everything."""
    repairs: int | None
    """The run whose differences it mends; null: what it finds itself."""
    scope: dict[str, Any] | None
    """Which consumers a reindex is of, but for their ids."""
    index_name: str | None
    total: int | None
    """Consumers there were when it began; of a reindex, those that were chosen."""
    compared: int
    """Consumers, so far; of a reindex, those that are being written again."""
    in_flight: int
    """Documents that differed only because a change of theirs was on its way."""
    differences: int
    causes: dict[str, int]
    mended: int
    error: str | None
    """Why it failed, or cannot go on just now."""
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    """Since it began, until it ended."""

    @property
    def is_over(self) -> bool:
        return self.finished_at is not None

    @property
    def agrees(self) -> bool:
        """Whether nothing is left that differs."""
        return self.state == "done" and self.differences == self.mended


class Difference(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A document that was not as the database has it."""

    document_id: str
    cause: Cause
    environment: str | None
    database_version: int | None
    index_version: int | None
    found_at: datetime


def request(
    connection: sa.Connection,
    kind: Kind,
    *,
    environment_id: int | None = None,
    repairs: int | None = None,
    scope: str | None = None,
) -> int:
    """Ask for a run; answer its number.

    Args:
        connection: in a transaction.
        kind: `verify`, `repair` or `reindex`.
        environment_id: this one alone; None: everything.
        repairs: mend what this run found, and nothing else.
        scope: of a reindex, as `infra.reindex` keeps it.

    Raises:
        VerificationError: that run's differences are not known.
    """
    if repairs is not None:
        _check_known(connection, repairs)
    values = {"kind": kind, "environment_id": environment_id, "repairs": repairs, "scope": scope}
    waiting: int | None = connection.execute(WAITING, values).scalar_one_or_none()
    if waiting is not None:
        return waiting
    forget(connection, kind)
    number: int = connection.execute(REQUEST, values).scalar_one()
    return number


def forget(connection: sa.Connection, kind: Kind) -> None:
    """Delete the runs of a kind that are over, but for the last, with what they found."""
    connection.execute(CLEAR, {"kind": kind, "runs": RUNS})


def _check_known(connection: sa.Connection, number: int) -> None:
    found = run(connection, number)
    if found is None:
        raise VerificationError(f"there is no run {number}")
    if found.kind == "reindex":
        raise VerificationError(f"run {number} compared nothing")
    if found.state != "done":
        raise VerificationError(f"run {number} is {found.state}, not done")
    if found.differences > KEPT:
        raise VerificationError(f"run {number} found {found.differences} differences, of which {KEPT} are known")


def run(connection: sa.Connection, number: int) -> Run | None:
    """A run as it stands; None if there is none of this number, or no longer."""
    row = connection.execute(RUN, {"id": number}).mappings().one_or_none()
    return None if row is None else _run(row)


def latest(connection: sa.Connection, rows: int, kinds: Sequence[Kind] = ("verify", "repair", "watch")) -> list[Run]:
    """The last runs, the latest first."""
    found = connection.execute(LATEST, {"rows": rows, "kinds": list(kinds)}).mappings()
    return [_run(row) for row in found]


def last_done(connection: sa.Connection) -> list[Run]:
    """The last run that was asked for and is done, and the watch's last round, as far as there are any."""
    return [_run(row) for row in connection.execute(LAST_DONE).mappings()]


def running(connection: sa.Connection) -> list[Run]:
    """Those that were asked for and are not over, the earliest first."""
    return [_run(row) for row in connection.execute(RUNNING).mappings()]


def differences(connection: sa.Connection, number: int, rows: int) -> list[Difference]:
    """What a run found, by the documents' ids; up to `KEPT` are known."""
    found = connection.execute(DIFFERENCES, {"id": number, "rows": rows})
    return [msgspec.convert(row, Difference, from_attributes=True) for row in found]


def known(connection: sa.Connection) -> dict[str, int]:
    """How many documents are known to differ, by cause: all causes, up to `KEPT` in all."""
    found = {row.cause: row.found for row in connection.execute(KNOWN)}
    return {cause: found.get(cause, 0) for cause in CAUSES}


def _run(row: sa.RowMapping) -> Run:
    return Run(**row, differences=sum(row["causes"].values()))
