"""Requests for rebuilds, and the progress of rebuilds: rows of the table `generations`.

Commands, HTTP requests and tasks call the same functions. A request writes a row, then the caller wakes a worker, and
`indexer/rebuild/builder.py` acts on the row. The id of a rebuild is the id of the generation being
built. `docs/rebuild-states.md` shows the effect of each request in each phase.

The table is written here and in `indexer/rebuild/transitions.py`, and nowhere else.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec
import sqlalchemy as sa

from infra.errors import ExplainedError
from infra.index import generations
from infra.operations.outbox import LIVE_LAG_MS
from infra.settings import Settings

Request: TypeAlias = Literal["rebuild", "cancel", "pause", "resume", "rollback", "drop"]

MISSES_LIMIT = 100_000
"""Misses are counted up to this number."""
KEEP_HOURS = 24
"""Time for a rollback, in hours: the previous generation is kept and written for so long after a swap."""

BUILDING = "state IN ('filling', 'refreshed')"
ADD_FIRST = sa.text("""
    INSERT INTO generations
        (index_name, state, phase, document_version, mapping_digest, fields, index_uuid, shards, live_at)
    VALUES (:index_name, 'live', 'done', :document_version, :mapping_digest, :fields, :index_uuid, :shards,
        present())""")
RECORD_UUID = sa.text("UPDATE generations SET index_uuid = :uuid WHERE id = :id AND index_uuid IS NULL")
START = sa.text(f"""
    INSERT INTO generations (index_name, state, phase, document_version, mapping_digest, fields, shards)
    SELECT :index_name, 'filling', 'requested', :document_version, :mapping_digest, :fields, :shards
    WHERE EXISTS (SELECT FROM generations WHERE state = 'live')
    ON CONFLICT ((true)) WHERE {BUILDING} DO NOTHING RETURNING id""")
CANCEL = sa.text(f"""
    UPDATE generations SET wanted = CASE WHEN {BUILDING} THEN 'cancel' END
    WHERE {BUILDING} OR wanted = 'rollback' RETURNING id""")
PAUSE = sa.text(f"""
    UPDATE generations SET is_paused = true, paused_at = coalesce(paused_at, present())
    WHERE {BUILDING} RETURNING id""")
# Only the phase `filling` has a rate, so only pauses of `filling` are added up.
RESUME = sa.text(f"""
    UPDATE generations SET is_paused = false, paused_at = NULL,
        rested = rested + CASE WHEN phase = 'filling' AND is_paused
            THEN present() - greatest(paused_at, filling_at) ELSE '0' END
    WHERE {BUILDING} RETURNING id""")
ROLL_BACK = sa.text(f"""
    UPDATE generations SET wanted = 'rollback' WHERE id = (
        SELECT id FROM generations WHERE state = 'kept' AND lost_at IS NULL AND keep_until > now()
        ORDER BY keep_until DESC LIMIT 1)
    AND NOT EXISTS (SELECT FROM generations WHERE {BUILDING}) RETURNING id""")
DROP = sa.text("""
    UPDATE generations SET keep_until = present() WHERE state = 'kept' AND wanted IS NULL AND keep_until > now()
    RETURNING id""")
IS_LIVE_INDEX_LOST = sa.text("SELECT EXISTS (SELECT FROM generations WHERE state = 'live' AND lost_at IS NOT NULL)")
PROGRESS = f"""
    SELECT g.id, g.index_name, g.state, g.phase, g.is_paused, g.wanted, g.document_version, s.documents, g.total,
        m.misses, g.differences, g.error, g.created_at AS started_at, g.ended_at, g.keep_until,
        CASE WHEN seconds > 0 THEN round(s.documents / seconds)::bigint END AS documents_per_second,
        CASE WHEN s.documents > 0 AND g.phase = 'filling' AND NOT g.is_paused
            THEN round(greatest(g.total - s.documents, 0) * seconds / s.documents)::bigint END AS remaining_seconds,
        ({LIVE_LAG_MS.text}) AS lag_ms
    FROM generations g CROSS JOIN LATERAL (
        SELECT extract(epoch FROM
            least(g.refreshed_at, g.ended_at, g.paused_at, clock_timestamp()) - g.filling_at - g.rested) AS seconds) t
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(documents), 0)::bigint AS documents FROM generation_slices WHERE generation_id = g.id) s
    CROSS JOIN LATERAL (
        SELECT count(*) AS misses FROM (
            SELECT FROM generation_misses WHERE generation_id = g.id LIMIT :misses_limit) AS missed) m"""
BY_ID = sa.text(f"{PROGRESS} WHERE g.id = :id").bindparams(misses_limit=MISSES_LIMIT)
LATEST = sa.text(f"""
    {PROGRESS} WHERE g.id = (
        SELECT max(id) FROM generations WHERE phase <> 'done' OR filling_at IS NOT NULL)
    """).bindparams(misses_limit=MISSES_LIMIT)


class RebuildError(ExplainedError):
    """The request is refused in the present phase; the message is a line for the caller."""


class Rebuild(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The progress or the result of a rebuild."""

    # State and phase are plain strings here: in a published schema an enumeration is closed, and a new phase would
    # break clients.

    id: int
    """The number of the rebuild."""
    index_name: str
    """The name of the new index in OpenSearch."""
    state: str
    """`filling`, then `refreshed` during the build; `live` while serving reads; then `kept`; at the end `dropped`."""
    phase: str
    """`requested`, `creating`, `filling`, `refilling`, `verifying`, `swapping`; then `done`, `failed`, `cancelled`."""
    is_paused: bool
    """Whether the rebuild waits for `resume`."""
    wanted: str | None
    """The pending request, `cancel` or `rollback`."""
    document_version: int
    """The version of the documents' form."""
    documents: int
    """Consumers written so far."""
    total: int
    """Consumers in the database at the start."""
    misses: int
    """Changes not yet in the new index, counted up to 100,000."""
    documents_per_second: int | None
    """Rate of the phase `filling`, without pauses."""
    remaining_seconds: int | None
    """Remaining time of the phase `filling`."""
    lag_ms: int
    """Age of the oldest change in the lane `live`, in milliseconds: how far the live index is behind."""
    differences: int | None
    """Differences found by the verification."""
    error: str | None
    """Why the rebuild has failed; during a rebuild, why the last step failed: the step is repeated."""
    started_at: datetime
    """Time of the request."""
    ended_at: datetime | None
    """Time of the end; null before."""
    keep_until: datetime | None
    """Until when the index before is kept for a rollback."""

    example: ClassVar[dict[str, Any]] = {
        "id": 2,
        "indexName": "consumers-000002",
        "state": "filling",
        "phase": "filling",
        "isPaused": False,
        "wanted": None,
        "documentVersion": 1,
        "documents": 340_000,
        "total": 1_000_000,
        "misses": 0,
        "documentsPerSecond": 17_000,
        "remainingSeconds": 39,
        "lagMs": 12,
        "differences": None,
        "error": None,
        "startedAt": "2024-11-01T10:00:00.000Z",
        "endedAt": None,
        "keepUntil": None,
    }

    @property
    def is_running(self) -> bool:
        return self.ended_at is None or self.wanted is not None


def add_first(connection: sa.Connection, index_name: str, index_uuid: str, shards: int) -> None:
    """Insert the first generation, live at once."""
    values = generations.DECLARED | {"index_name": index_name, "index_uuid": index_uuid, "shards": shards}
    connection.execute(ADD_FIRST, values)


def record_uuid(connection: sa.Connection, generation_id: int, uuid: str) -> None:
    """Record the UUID of an index created before UUIDs were recorded."""
    connection.execute(RECORD_UUID, {"id": generation_id, "uuid": uuid})


def start(connection: sa.Connection, settings: Settings) -> Rebuild:
    """Request a rebuild, to an index with INDEX_SHARDS shards.

    Raises:
        RebuildError: a rebuild is running, or there is no live index.
    """
    name = generations.free_name(connection, (), settings.index_prefix)
    values = generations.DECLARED | {"index_name": name, "shards": settings.index_shards}
    generation_id = connection.execute(START, values).scalar_one_or_none()
    if generation_id is None:
        running = latest(connection)
        if running and running.state in {"filling", "refreshed"}:
            raise RebuildError(
                f"{running.index_name} is already being built (phase {running.phase}): wait until it ends, or cancel it"
            )
        raise RebuildError("There is no live index: run `consumers migrate`, which creates the first index")
    return by_id(connection, generation_id)


def cancel(connection: sa.Connection, _: Settings) -> Rebuild:
    """Request the end of the running rebuild, or withdraw a pending rollback.

    Raises:
        RebuildError: no rebuild is running and no rollback is pending.
    """
    return _request(connection, CANCEL, "No rebuild is running and no rollback is pending")


def pause(connection: sa.Connection, _: Settings) -> Rebuild:
    """Pause the running rebuild; the drains continue to write every change to the new index.

    Raises:
        RebuildError: no rebuild is running.
    """
    return _request(connection, PAUSE, "No rebuild is running")


def resume(connection: sa.Connection, _: Settings) -> Rebuild:
    """Resume the paused rebuild; no change if the running rebuild is not paused.

    Raises:
        RebuildError: no rebuild is running.
    """
    return _request(connection, RESUME, "No rebuild is running")


def roll_back(connection: sa.Connection, _: Settings) -> Rebuild:
    """Request a switch of reads back to the previous index.

    Raises:
        RebuildError: no previous index is kept, or a rebuild is running.
    """
    refusal = "No previous index is kept, or a rebuild is running: cancel the rebuild first"
    return _request(connection, ROLL_BACK, refusal)


def drop(connection: sa.Connection, _: Settings) -> Rebuild:
    """Let the previous index be deleted now instead of after `KEEP_HOURS`.

    Raises:
        RebuildError: no previous index is kept, or a rollback is pending.
    """
    refusal = "No previous index is kept, or a rollback is pending: cancel the rollback first"
    return _request(connection, DROP, refusal)


def latest(connection: sa.Connection) -> Rebuild | None:
    """Read the running rebuild, or else the last rebuild; None before the first rebuild."""
    row = connection.execute(LATEST).one_or_none()
    return None if row is None else msgspec.convert(row, Rebuild, from_attributes=True)


def by_id(connection: sa.Connection, generation_id: int) -> Rebuild:
    """Read the rebuild of a generation."""
    row = connection.execute(BY_ID, {"id": generation_id}).one()
    return msgspec.convert(row, Rebuild, from_attributes=True)


def is_live_index_lost(connection: sa.Connection) -> bool:
    """Whether the live generation's index was deleted or replaced."""
    return bool(connection.execute(IS_LIVE_INDEX_LOST).scalar_one())


def _request(connection: sa.Connection, statement: sa.TextClause, refusal: str) -> Rebuild:
    """Run the statement of a request, which returns the ids of the changed rows.

    Raises:
        RebuildError: no row was changed.
    """
    ids = list(connection.execute(statement).scalars())
    if not ids:
        raise RebuildError(refusal)
    return by_id(connection, ids[0])


REQUESTS: Mapping[Request, Callable[[sa.Connection, Settings], Rebuild]] = {
    "rebuild": start,
    "cancel": cancel,
    "pause": pause,
    "resume": resume,
    "rollback": roll_back,
    "drop": drop,
}
"""The requests by name: as a task (`indexer.…`), as a command (`consumers index …`), and in a path of the API."""
SUMMARIES: Mapping[Request, str] = {
    "rebuild": "Build a new index beside the live index, and switch reads to it once it is verified",
    "cancel": "Cancel the running rebuild, or a pending rollback",
    "pause": "Pause the running rebuild",
    "resume": "Resume the paused rebuild",
    "rollback": "Switch reads back to the previous index, which has every change since",
    "drop": "Delete the previous index now (no rollback afterwards)",
}
"""A line for each request: the help of the command, and the summary of the path."""
