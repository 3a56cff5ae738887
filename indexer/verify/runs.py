"""Works on the verifications that were asked for: a moment at a time, by whoever is free, from where the last one was.

What has been compared is recorded range by range, with a heartbeat: of one who is killed, another takes the run over.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec
import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch
from opensearchpy.exceptions import NotFoundError
from sqlalchemy.exc import DBAPIError

from indexer.drain.bulk import IndexUnavailable
from indexer.verify import reindex, suspects
from indexer.verify.compare import ROWS, THREADS, Report, Scope, Step, Submit, index_of, ranges, steps
from indexer.verify.pool import Comparers
from indexer.verify.repair import mend
from infra import logs
from infra.database.engine import open_engine
from infra.index import naming
from infra.index.client import open_writer
from infra.operations.reindex import ReindexScope
from infra.operations.verify import MAX_STORED_DIFFERENCES, delete_old_runs
from infra.settings import Settings

log = structlog.get_logger()

LOST_SECONDS = 30
"""A run nobody was heard of for so long is taken by another."""
ATTEMPTS = 60
"""One a second. After so many in a row that came to nothing, a run has failed."""
WATCH_ROWS = 1_000
"""Consumers the watch compares at a time."""

TAKE = sa.text("""
    UPDATE verifications v SET claim = v.claim + 1, state = 'running', heartbeat_at = clock_timestamp(),
        started_at = coalesce(v.started_at, clock_timestamp()), attempts = v.attempts + 1,
        index_name = coalesce(v.index_name, (SELECT index_name FROM generations WHERE state = 'live'))
    WHERE id = (
        SELECT id FROM verifications WHERE finished_at IS NULL AND kind = ANY(:kinds)
            AND (heartbeat_at IS NULL OR heartbeat_at < clock_timestamp() - :lost * interval '1 second')
        ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, kind, environment_id, repairs, scope, index_name, total, position, compared, in_flight, causes,
        mended, claim, attempts""")
COUNT = sa.text("""
    UPDATE verifications SET total = (
        SELECT count(*) FROM consumers
        WHERE CAST(:environment_id AS int) IS NULL OR environment_id = :environment_id)
    WHERE id = :id RETURNING total""")
CHOSEN = sa.text("UPDATE verifications SET total = :total WHERE id = :id")
RECORD = sa.text("""
    UPDATE verifications SET position = :position, compared = :compared, in_flight = :in_flight, causes = :causes,
        mended = :mended, heartbeat_at = clock_timestamp(), attempts = 0, error = NULL
    WHERE id = :id AND claim = :claim AND finished_at IS NULL""").bindparams(sa.bindparam("causes", type_=sa.JSON))
KEEP = sa.text("""
    INSERT INTO differences (verification_id, document_id, cause, environment_id, database_version, index_version)
    VALUES (:run, :document_id, :cause, :environment_id, :database_version, :index_version) ON CONFLICT DO NOTHING""")
RELEASE = sa.text("UPDATE verifications SET heartbeat_at = NULL, error = :error WHERE id = :id AND claim = :claim")
END = sa.text("""
    UPDATE verifications SET state = :state, error = :error, finished_at = clock_timestamp()
    WHERE id = :id AND claim = :claim AND finished_at IS NULL""")
STORED = sa.text("""
    SELECT document_id FROM differences WHERE verification_id = :id AND document_id > :after
    ORDER BY document_id LIMIT :rows""")
WATCH = sa.text("INSERT INTO verifications (kind) VALUES ('watch') ON CONFLICT DO NOTHING")


class Taken(msgspec.Struct, kw_only=True):
    """A run as it was when it was taken."""

    id: int
    kind: str
    environment_id: int | None
    repairs: int | None
    scope: ReindexScope | None
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
    def mends(self) -> bool:
        return self.kind == "repair"


Portion: TypeAlias = Callable[[Iterable[Any]], Iterable[Any]]
"""As many of the ranges as are to be done now."""


class LostError(Exception):
    """Another has taken the run."""


class Rest(Protocol):
    def __call__(self, *, at_once: bool = False) -> None: ...


class Place(NamedTuple):
    """Both sides, and who compares them."""

    engine: sa.Engine
    client: OpenSearch
    alias: str
    """By which the index is read."""
    submit: Callable[[Scope, int], Submit]
    """What has ranges of about so many consumers compared."""
    rest: Rest
    """Called when there is nothing to compare."""


def place_of(settings: Settings) -> Place:
    """For a process that has one, to its end."""
    engine, client = open_engine(settings, pool_size=THREADS + 1, name="verify"), open_writer(settings)
    comparers = Comparers(settings, engine, client)
    return Place(engine, client, naming.read_alias(settings.index_prefix), comparers.submit, comparers.rest)


def work(place: Place, seconds: float) -> bool:
    """Go on with a run that was asked for, for about so long; tell whether there may be more to do at once.

    Never raises for what is wrong with database or index: the run goes on when they are back, or has failed.
    """
    until = time.monotonic() + seconds
    found = _go_on(
        place, ("verify", "repair", "reindex"), lambda parts: takewhile(lambda _: time.monotonic() < until, parts)
    )
    if not found:
        place.rest()
    return found


def watch(place: Place) -> None:
    """Compare the next thousand consumers, of all that there are, round after round."""
    try:
        with place.engine.begin() as connection:
            if connection.execute(WATCH).rowcount:
                delete_old_runs(connection, "watch")
    except DBAPIError as error:
        log.warning("verification_postponed", reason=logs.error_kind(error))
        return
    _go_on(place, ("watch",), lambda parts: islice(parts, 1), WATCH_ROWS)


def _go_on(place: Place, kinds: tuple[str, ...], portion: Portion, rows: int = ROWS) -> bool:
    try:
        run = _take(place.engine, kinds)
    except DBAPIError as error:
        log.warning("verification_postponed", reason=logs.error_kind(error))
        return False
    if run is None:
        return False
    try:
        _compare(place, run, portion, rows)
    except LostError:
        log.warning("verification_lost", run=run.id)
        return False
    except Exception as error:  # noqa: BLE001 (whatever it is, the run goes on, or is known to have failed)
        place.rest(at_once=True)
        _postpone(place.engine, run, error)
        return False
    return True


def _take(engine: sa.Engine, kinds: tuple[str, ...]) -> Taken | None:
    with engine.begin() as connection:
        row = connection.execute(TAKE, {"kinds": list(kinds), "lost": LOST_SECONDS}).one_or_none()
        if row is None:
            return None
        run = msgspec.convert(row, Taken, from_attributes=True)
        if run.total is None and run.scope is None:
            run.total = connection.execute(COUNT, {"id": run.id, "environment_id": run.environment_id}).scalar_one()
        return run


def _compare(place: Place, run: Taken, portion: Portion, rows: int) -> None:
    if run.index_name is None:
        _fail(place.engine, run, "there is no live index")
        return
    if run.scope is not None:
        _reindex(place, run, run.scope, portion)
        return
    scope = Scope(index_of(place.engine, run.index_name), run.environment_id)
    if run.repairs is not None:
        found = _stored(place, run, scope)
    else:
        # The watch compares one range at a time, for which nobody need be started.
        consumers = rows if run.kind == "watch" else run.total or 0
        found = steps(portion(ranges(place.engine, scope, run.position, rows)), place.submit(scope, consumers))
    for step in found:
        _record(place, run, step)
        if step.last is None:
            log.info("verified", run=run.id, kind=run.kind, compared=run.compared, **run.causes)
            return
    _release(place.engine, run)


def _reindex(place: Place, run: Taken, scope: ReindexScope, portion: Portion) -> None:
    if run.total is None:
        with place.engine.begin() as connection:
            run.total = reindex.total(connection, place.client, place.alias, scope)
            connection.execute(CHOSEN, {"id": run.id, "total": run.total})
    for page in portion(reindex.pages(place.engine, place.client, place.alias, scope, run.position)):
        with place.engine.begin() as connection:
            run.compared += reindex.append(connection, scope, page)
            run.position = page.range.last or run.position
            if not connection.execute(RECORD, {"position": run.position, **_counts(run)}).rowcount:
                raise LostError
            if page.range.last is None:
                connection.execute(END, {"id": run.id, "claim": run.claim, "state": "done", "error": None})
        if page.range.last is None:
            log.info("reindexed", run=run.id, consumers=run.compared)
            return
    _release(place.engine, run)


def _stored(place: Place, run: Taken, scope: Scope) -> Iterator[Step]:
    """Look again at what another run found."""
    after: str | None = run.position
    while after is not None:
        values = {"id": run.repairs, "after": after, "rows": suspects.BATCH}
        with place.engine.connect() as connection:
            ids = list(connection.execute(STORED, values).scalars())
        checked = suspects.check(place.engine, place.client, scope.searched, ids)
        after = ids[-1] if len(ids) == suspects.BATCH else None
        yield Step(after, len(ids), checked.in_flight, checked.differences)


def _record(place: Place, run: Taken, step: Step) -> None:
    """Put down what was found, and that somebody is at it; mend it first, if that was asked for."""
    report = Report(compared=run.compared, in_flight=run.in_flight, causes=run.causes)
    room = max(0, MAX_STORED_DIFFERENCES - report.differences)
    report.add(step)
    run.compared, run.in_flight, run.causes = report.compared, report.in_flight, report.causes
    with place.engine.begin() as connection:
        if run.mends and step.differences:
            assert run.index_name
            run.mended += mend(connection, place.client, run.index_name, step.differences)
        values = {"position": step.last or run.position, **_counts(run)}
        if not connection.execute(RECORD, values).rowcount:
            raise LostError
        if step.last is None:
            connection.execute(END, {"id": run.id, "claim": run.claim, "state": "done", "error": None})
        if kept := [_kept(run, difference) for difference, _ in step.differences[:room]]:
            connection.execute(KEEP, kept)
    for difference, _ in step.differences[:room]:
        log.warning("index_differs", run=run.id, cause=difference.cause, document=difference.id[:64])
    run.position = step.last or run.position


def _counts(run: Taken) -> dict[str, Any]:
    return {name: getattr(run, name) for name in ("id", "claim", "compared", "in_flight", "causes", "mended")}


def _kept(run: Taken, difference: suspects.Difference) -> dict[str, Any]:
    return {
        "run": run.id,
        # PostgreSQL has no text with a NUL.
        "document_id": difference.id.replace("\0", "\ufffd"),
        "cause": difference.cause,
        "environment_id": difference.environment_id,
        "database_version": difference.database_version,
        "index_version": difference.index_version,
    }


def _fail(engine: sa.Engine, run: Taken, reason: str) -> None:
    with engine.begin() as connection:
        connection.execute(END, {"id": run.id, "claim": run.claim, "state": "failed", "error": reason})


def _release(engine: sa.Engine, run: Taken, reason: str | None = None) -> None:
    with engine.begin() as connection:
        connection.execute(RELEASE, {"id": run.id, "claim": run.claim, "error": reason})


def _postpone(engine: sa.Engine, run: Taken, error: Exception) -> None:
    """It is taken again in a second, unless that came to nothing too often, or the index is there no more."""
    reason = str(error) if isinstance(error, IndexUnavailable) else logs.error_kind(error)
    log.warning("verification_postponed", run=run.id, reason=reason)
    is_over = run.attempts >= ATTEMPTS or isinstance(error, NotFoundError)
    try:
        (_fail if is_over else _release)(engine, run, reason)
    except DBAPIError as failed:
        log.warning("verification_postponed", run=run.id, reason=logs.error_kind(failed))
