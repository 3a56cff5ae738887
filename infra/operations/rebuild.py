"""What is asked of rebuilds, and how far they are: rows of the database, the same for commands, requests and tasks.

Whoever asks writes a row and wakes a worker; `indexer/rebuild/builder.py` acts. A rebuild is the generation it builds.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa

from infra.index import generations
from infra.operations.outbox import LIVE_LAG_MS
from infra.settings import Settings

MOST = 100_000
"""Misses are counted up to here."""
KEEP_HOURS = 24
"""How long the generation before a swap is kept written, so that one can go back to it."""

BUILDING = "state IN ('filling', 'refreshed')"
START = sa.text(f"""
    INSERT INTO generations (index_name, state, phase, document_version, mapping_digest, fields)
    SELECT :index_name, 'filling', 'requested', :document_version, :mapping_digest, :fields
    WHERE EXISTS (SELECT FROM generations WHERE state = 'live')
    ON CONFLICT ((true)) WHERE {BUILDING} DO NOTHING RETURNING id""")
CANCEL = sa.text(f"""
    UPDATE generations SET wanted = CASE WHEN {BUILDING} THEN 'cancel' END
    WHERE {BUILDING} OR wanted = 'rollback' RETURNING id""")
PAUSE = sa.text(f"""
    UPDATE generations SET is_paused = true, paused_at = coalesce(paused_at, present())
    WHERE {BUILDING} RETURNING id""")
# No other phase than the filling has a rate.
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
LOST = sa.text("SELECT EXISTS (SELECT FROM generations WHERE state = 'live' AND lost_at IS NOT NULL)")
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
            SELECT FROM generation_misses WHERE generation_id = g.id LIMIT :most) AS missed) m"""
ONE = sa.text(f"{PROGRESS} WHERE g.id = :id")
LATEST = sa.text(f"""
    {PROGRESS} WHERE g.id = (
        SELECT max(id) FROM generations WHERE phase <> 'done' OR filling_at IS NOT NULL)""")


class RebuildError(Exception):
    """What is asked for cannot be done just now; the message is one line for whoever asked."""


class Rebuild(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A generation that is, or was, built: how far it is, and what became of it."""

    id: int
    index_name: str
    state: str
    """`filling` and `refreshed` while it is built, `live` when it is read, then `kept`, and `dropped` in the end."""
    phase: str
    """`requested`, `creating`, `filling`, `refilling`, `verifying`, `swapping`; then `done`, `failed`, `cancelled`."""
    is_paused: bool
    wanted: str | None
    """`cancel` or `rollback`, until that is done."""
    document_version: int
    documents: int
    total: int
    """Consumers there were when it began."""
    misses: int
    """Changes that it did not take yet, up to 100,000."""
    documents_per_second: int | None
    """While it was filled, rests not counted."""
    remaining_seconds: int | None
    """Of the filling."""
    lag_ms: int
    """Age of the oldest live change that is not searchable yet, in the index that is read."""
    differences: int | None
    """What its verification found."""
    error: str | None
    started_at: datetime
    ended_at: datetime | None
    keep_until: datetime | None

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


def start(connection: sa.Connection, settings: Settings) -> Rebuild:
    """Ask for a rebuild.

    Raises:
        RebuildError: one is running, or there is nothing to rebuild.
    """
    name = generations.free_name(connection, (), settings.index_prefix)
    number = connection.execute(START, generations.DECLARED | {"index_name": name}).scalar_one_or_none()
    if number is None:
        running = latest(connection)
        if running and running.state in {"filling", "refreshed"}:
            raise RebuildError(f"{running.index_name} is being built already, phase {running.phase}")
        raise RebuildError("there is no index yet: `consumers migrate` makes the first")
    return of(connection, number)


def cancel(connection: sa.Connection, _: Settings) -> Rebuild:
    """Ask for the end of what is being built, or of a rollback that has not happened.

    Raises:
        RebuildError: there is nothing of the kind.
    """
    return _asked(connection, CANCEL, "nothing is being built")


def pause(connection: sa.Connection, _: Settings) -> Rebuild:
    """Ask for a rest of what is being built; it goes on being given all changes.

    Raises:
        RebuildError: nothing is being built.
    """
    return _asked(connection, PAUSE, "nothing is being built")


def resume(connection: sa.Connection, _: Settings) -> Rebuild:
    """Ask for the end of the rest.

    Raises:
        RebuildError: nothing is being built.
    """
    return _asked(connection, RESUME, "nothing is being built")


def roll_back(connection: sa.Connection, _: Settings) -> Rebuild:
    """Ask for the generation before to be read again.

    Raises:
        RebuildError: none is kept, or another is being built.
    """
    return _asked(connection, ROLL_BACK, "no earlier index is kept, or another is being built: cancel that first")


def drop(connection: sa.Connection, _: Settings) -> Rebuild:
    """Ask for the kept generation to go, before its time.

    Raises:
        RebuildError: none is kept.
    """
    return _asked(connection, DROP, "no earlier index is kept")


def latest(connection: sa.Connection) -> Rebuild | None:
    """The running rebuild, or the last; None if there never was one."""
    row = connection.execute(LATEST, {"most": MOST}).one_or_none()
    return None if row is None else msgspec.convert(row, Rebuild, from_attributes=True)


def is_lost(connection: sa.Connection) -> bool:
    """Whether the index that should be read is gone, or another is in its place."""
    return bool(connection.execute(LOST).scalar_one())


def of(connection: sa.Connection, number: int) -> Rebuild:
    """That of a generation, by its row's id."""
    row = connection.execute(ONE, {"id": number, "most": MOST}).one()
    return msgspec.convert(row, Rebuild, from_attributes=True)


def _asked(connection: sa.Connection, statement: sa.TextClause, otherwise: str) -> Rebuild:
    numbers = list(connection.execute(statement).scalars())
    if not numbers:
        raise RebuildError(otherwise)
    return of(connection, numbers[0])


REQUESTS: dict[str, Callable[[sa.Connection, Settings], Rebuild]] = {
    "rebuild": start,
    "cancel": cancel,
    "pause": pause,
    "resume": resume,
    "rollback": roll_back,
    "drop": drop,
}
"""What may be asked, by its name as a task (`indexer.…`), as a command (`consumers index …`) and in a path."""
