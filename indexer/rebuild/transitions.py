"""Changes of a generation's state. Each holds the barrier exclusively: no drain is in the middle of a round meanwhile,
and every round after it knows the new state.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch

from indexer.rebuild import fill
from infra.index import generations, naming
from infra.index.generations import BARRIER, EXCLUSIVELY
from infra.operations.rebuild import KEEP_HOURS

log = structlog.get_logger()

CHUNK = 10_000

HOLD = sa.text("""
    SELECT index_name FROM generations
    WHERE id = :id AND state = 'filling' AND phase = 'creating' AND wanted IS NULL FOR NO KEY UPDATE""")
REQUESTED = sa.text("SELECT index_name FROM generations WHERE id = :id AND phase = 'requested' FOR NO KEY UPDATE")
NAMED = sa.text("""
    UPDATE generations SET phase = 'creating', index_name = :index_name
    WHERE id = :id AND phase = 'requested' AND wanted IS NULL""")
FILLING = sa.text("""
    UPDATE generations SET phase = 'filling', index_uuid = :index_uuid, document_version = :document_version,
        mapping_digest = :mapping_digest, fields = :fields, filling_at = present(),
        total = (SELECT count(*) FROM consumers)
    WHERE id = :id""")
REFRESHED = sa.text("""
    UPDATE generations SET state = 'refreshed', phase = 'refilling', refreshed_at = present()
    WHERE id = :id AND state = 'filling' AND phase = 'filling' AND wanted IS NULL AND NOT is_paused
        AND EXISTS (SELECT FROM generation_slices WHERE generation_id = :id)
        AND NOT EXISTS (SELECT FROM generation_slices WHERE generation_id = :id AND done_at IS NULL)""")
READY = sa.text("""
    SELECT index_name, index_uuid FROM generations g
    WHERE id = :id AND NOT is_paused AND lost_at IS NULL
        AND (state = 'refreshed' AND phase = 'swapping' AND wanted IS NULL OR state = 'kept' AND wanted = 'rollback')
        AND NOT EXISTS (SELECT FROM generation_misses WHERE generation_id = g.id)""")
# What was kept until now goes; what was live is kept, unless it is gone.
SUCCEED = (
    sa.text("UPDATE generations SET keep_until = present(), wanted = NULL WHERE state = 'kept' AND id <> :id"),
    sa.text("""
        UPDATE generations SET state = CASE WHEN lost_at IS NULL THEN 'kept' ELSE 'dropped' END,
            keep_until = present() + :hours * interval '1 hour'
        WHERE state = 'live'"""),
    sa.text("""
        UPDATE generations SET state = 'live', phase = 'done', wanted = NULL, keep_until = NULL, live_at = present(),
            ended_at = coalesce(ended_at, present())
        WHERE id = :id"""),
)
ABANDONED = sa.text("""
    UPDATE generations SET state = 'dropped', phase = CASE WHEN error IS NULL AND wanted = 'cancel'
            AND CAST(:error AS text) IS NULL THEN 'cancelled' ELSE 'failed' END,
        error = coalesce(:error, error), wanted = NULL, is_paused = false, ended_at = present(),
        -- Before it had a name of its own, the index of that name is another's.
        removed_at = CASE WHEN phase = 'requested' THEN present() END
    WHERE id = :id AND state IN ('filling', 'refreshed')""")
EXPIRED = sa.text("""
    UPDATE generations SET state = 'dropped' WHERE state = 'kept' AND keep_until <= now() AND wanted IS NULL
    RETURNING index_name""")
TO_REMOVE = sa.text("SELECT id, index_name FROM generations WHERE state = 'dropped' AND removed_at IS NULL ORDER BY id")
FORGET_SLICES = sa.text("DELETE FROM generation_slices WHERE generation_id = :id")
FORGET_MISSES = sa.text("""
    DELETE FROM generation_misses WHERE generation_id = :id AND id IN (
        SELECT id FROM generation_misses WHERE generation_id = :id LIMIT :rows)""")
REMOVED = sa.text("UPDATE generations SET removed_at = present() WHERE id = :id")


@contextmanager
def exclusively(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that holds the barrier; drains wait for its end, so it waits for them only shortly.

    Raises:
        OperationalError: their rounds take long just now.
    """
    with engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
        connection.execute(EXCLUSIVELY, {"lock": BARRIER})
        yield connection


def name(engine: sa.Engine, client: OpenSearch, prefix: str, number: int) -> None:
    """See to it that a generation has a name that no index has."""
    taken = generations.look(client, prefix)
    with engine.begin() as connection:
        if (found := connection.execute(REQUESTED, {"id": number}).scalar_one_or_none()) in taken:
            found = generations.free_name(connection, taken, prefix)
        connection.execute(NAMED, {"id": number, "index_name": found})


def begin_filling(engine: sa.Engine, client: OpenSearch, prefix: str, number: int) -> None:
    """Make the index; from now on the drains write it too.

    Its row is held meanwhile, so that it is not cancelled and removed before it is made.
    """
    with engine.begin() as connection:
        if not (held := connection.execute(HOLD, {"id": number}).scalar_one_or_none()):
            return
        connection.execute(sa.text("SET LOCAL statement_timeout = '5min'"))
        fill.plan(connection, number)
        if held not in generations.look(client, prefix):
            generations.create(client, held)
        uuid = generations.look(client, prefix)[held].uuid
        connection.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
        connection.execute(EXCLUSIVELY, {"lock": BARRIER})
        connection.execute(FILLING, generations.DECLARED | {"id": number, "index_uuid": uuid})
    log.info("rebuild_filling", index=held)


def full(engine: sa.Engine, number: int) -> bool:
    """If all slices are done, have it refreshed by the drains from now on; tell whether it is so."""
    with exclusively(engine) as connection:
        return bool(connection.execute(REFRESHED, {"id": number}).rowcount)


def swap(engine: sa.Engine, client: OpenSearch, prefix: str, number: int) -> bool:
    """Let a generation be read that lacks nothing; the one before is kept. Tells whether it is done.

    Raises:
        OpenSearchException, SearchError: readers may have either, which both are up to date; the rows say which.
    """
    with exclusively(engine) as connection:
        ready = connection.execute(READY, {"id": number}).one_or_none()
        if ready is None:
            return False
        found = generations.look(client, prefix).get(ready.index_name)
        if found is None or found.uuid != ready.index_uuid:
            return False
        generations.show(client, prefix, ready.index_name)
        for statement in SUCCEED:
            connection.execute(statement, {"id": number, "hours": KEEP_HOURS})
    log.info("index_swapped", index=ready.index_name)
    return True


def abandon(engine: sa.Engine, number: int, error: str | None = None) -> None:
    """Give up what is being built; readers never noticed it."""
    with exclusively(engine) as connection:
        connection.execute(ABANDONED, {"id": number, "error": error and error[:500]})
    log.warning("rebuild_ended", generation=number, reason=error or "cancelled")


def expire(engine: sa.Engine) -> None:
    """Give up the kept generation whose time is over."""
    with exclusively(engine) as connection:
        for dropped in connection.execute(EXPIRED).scalars():
            log.info("generation_dropped", index=dropped)


def remove(engine: sa.Engine, client: OpenSearch, prefix: str) -> None:
    """Remove the indices of dropped generations, and what was recorded of them. Nobody writes or reads them.

    Raises:
        OpenSearchException, SearchError: an index may be there still.
    """
    with engine.connect() as connection:
        dropped = connection.execute(TO_REMOVE).all()
        live = connection.execute(generations.LIVE).one_or_none()
    for row in dropped:
        found = generations.look(client, prefix)
        index = found.get(row.index_name)
        # As after a swap that was not recorded.
        if index and live and naming.read_alias(prefix) in index.aliases and live.index_name in found:
            generations.show(client, prefix, live.index_name)
        generations.delete(client, row.index_name)
        with engine.begin() as connection:
            connection.execute(FORGET_SLICES, {"id": row.id})
        while _forget_misses(engine, row.id):
            pass
        with engine.begin() as connection:
            connection.execute(REMOVED, {"id": row.id})


def _forget_misses(engine: sa.Engine, number: int) -> bool:
    with engine.begin() as connection:
        return connection.execute(FORGET_MISSES, {"id": number, "rows": CHUNK}).rowcount == CHUNK
