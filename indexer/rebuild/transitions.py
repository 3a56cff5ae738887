"""Changes of a generation's state and phase (`docs/rebuild-states.md`).

The table `generations` is written here and in `infra/operations/rebuild.py` (requests, the first generation), and
nowhere else. A change of state holds the barrier exclusively: no round of a drain is under way meanwhile, and
every later round reads the new state. A change of phase within a state needs no barrier, because the drains do not
read the phase.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import sqlalchemy as sa
import structlog
from opensearchpy import OpenSearch

from indexer.rebuild import fill
from infra.database import installation
from infra.index import generations, indices, naming
from infra.index.generations import LOCK_BARRIER
from infra.operations.rebuild import KEEP_HOURS

log = structlog.get_logger()

MISSES_PER_DELETE = 10_000

REQUESTED = sa.text("SELECT index_name FROM generations WHERE id = :id AND phase = 'requested' FOR NO KEY UPDATE")
TO_CREATING = sa.text("""
    UPDATE generations SET phase = 'creating', index_name = :index_name
    WHERE id = :id AND phase = 'requested' AND wanted IS NULL""")
CREATING = sa.text("""
    SELECT index_name, shards FROM generations
    WHERE id = :id AND state = 'filling' AND phase = 'creating' AND wanted IS NULL FOR NO KEY UPDATE""")
COUNT_CONSUMERS = sa.text("SELECT count(*) FROM consumers")
TO_FILLING = sa.text("""
    UPDATE generations SET phase = 'filling', index_uuid = :index_uuid, document_version = :document_version,
        mapping_digest = :mapping_digest, fields = :fields, filling_at = present(), error = NULL,
        total = :total
    WHERE id = :id""")
TO_REFRESHED = sa.text("""
    UPDATE generations SET state = 'refreshed', phase = 'refilling', refreshed_at = present(), error = NULL
    WHERE id = :id AND state = 'filling' AND phase = 'filling' AND wanted IS NULL AND NOT is_paused
        AND EXISTS (SELECT FROM generation_slices WHERE generation_id = :id)
        AND NOT EXISTS (SELECT FROM generation_slices WHERE generation_id = :id AND done_at IS NULL)""")
TO_PHASE = sa.text("""
    UPDATE generations SET phase = :phase, error = NULL,
        verified_at = CASE WHEN :phase = 'swapping' THEN present() ELSE verified_at END
    WHERE id = :id AND state = 'refreshed'""")
# Records nothing if the rebuild is paused or to be cancelled, or if another worker has verified this range.
VERIFIED = sa.text("""
    UPDATE generations SET verify_position = :last, differences = coalesce(differences, 0) + :differences
    WHERE id = :id AND phase = 'verifying' AND wanted IS NULL AND NOT is_paused AND verify_position = :position
    RETURNING differences""")
# The lock makes a request wait for the end of the swap: a request accepted before the swap prevents the swap, and a
# request after the swap is refused.
READY_TO_SWAP = sa.text("""
    SELECT index_name, index_uuid FROM generations g
    WHERE id = :id AND lost_at IS NULL
        AND (state = 'refreshed' AND phase = 'swapping' AND wanted IS NULL AND NOT is_paused
            OR state = 'kept' AND wanted = 'rollback')
        AND NOT EXISTS (SELECT FROM generation_misses WHERE generation_id = g.id)
    FOR NO KEY UPDATE""")
# In order: the kept generation expires, the live generation becomes kept (or dropped, if the index is lost), and the
# new generation becomes live. At no moment are two generations live.
SWAP = (
    sa.text("UPDATE generations SET keep_until = present(), wanted = NULL WHERE state = 'kept' AND id <> :id"),
    sa.text("""
        UPDATE generations SET state = CASE WHEN lost_at IS NULL THEN 'kept' ELSE 'dropped' END,
            keep_until = present() + :hours * interval '1 hour'
        WHERE state = 'live'"""),
    sa.text("""
        UPDATE generations SET state = 'live', phase = 'done', wanted = NULL, keep_until = NULL, live_at = present(),
            ended_at = coalesce(ended_at, present()), is_paused = false, paused_at = NULL, error = NULL
        WHERE id = :id"""),
)
# In the phase `requested` the name is not checked yet: an existing index of the same name does not belong to the
# generation, and is recorded as removed, to prevent deletion.
ABANDON = sa.text("""
    UPDATE generations SET state = 'dropped', phase = CASE WHEN lost_at IS NULL AND wanted = 'cancel'
            AND CAST(:error AS text) IS NULL THEN 'cancelled' ELSE 'failed' END,
        error = coalesce(:error, error), wanted = NULL, is_paused = false, ended_at = present(),
        removed_at = CASE WHEN phase = 'requested' THEN present() END
    WHERE id = :id AND state IN ('filling', 'refreshed')""")
# The error of a lost index is the reason for the end of the rebuild, and stays.
POSTPONED = sa.text("""
    UPDATE generations SET error = :error
    WHERE state IN ('filling', 'refreshed') AND lost_at IS NULL AND error IS DISTINCT FROM :error""")
EXPIRE = sa.text("""
    UPDATE generations SET state = 'dropped' WHERE state = 'kept' AND keep_until <= now() AND wanted IS NULL
    RETURNING index_name""")
TO_REMOVE = sa.text("SELECT id, index_name FROM generations WHERE state = 'dropped' AND removed_at IS NULL ORDER BY id")
DELETE_SLICES = sa.text("DELETE FROM generation_slices WHERE generation_id = :id")
DELETE_MISSES = sa.text("""
    DELETE FROM generation_misses WHERE generation_id = :id AND id IN (
        SELECT id FROM generation_misses WHERE generation_id = :id LIMIT :rows)""")
# An index may appear after its removal, when a busy cluster creates the index late.
REMOVE_AGAIN = sa.text("""
    UPDATE generations SET removed_at = NULL
    WHERE state = 'dropped' AND removed_at IS NOT NULL AND index_name = ANY(:names)""")
REMOVED = sa.text("UPDATE generations SET removed_at = present() WHERE id = :id")
LOST = sa.text("""
    UPDATE generations SET lost_at = present(),
        wanted = CASE WHEN state IN ('filling', 'refreshed') THEN 'cancel' END,
        error = CASE WHEN state IN ('filling', 'refreshed') THEN 'its index was removed' ELSE error END,
        keep_until = CASE WHEN state = 'kept' THEN present() ELSE keep_until END
    WHERE id = :id AND lost_at IS NULL""")
FOUND_AGAIN = sa.text("UPDATE generations SET lost_at = NULL WHERE id = :id AND state = 'live'")
RECORD_SEQ_NOS = sa.text("""
    UPDATE generations SET seen_seq_nos = ARRAY(
        SELECT greatest(u.seen, u.current)
        FROM unnest(seen_seq_nos, CAST(:seq_nos AS bigint[])) WITH ORDINALITY AS u (seen, current, shard)
        ORDER BY u.shard)
    WHERE id = :id""")
DISOWN_UUID = sa.text("UPDATE generations SET index_uuid = index_uuid || ' disowned' WHERE id = :id")


@contextmanager
def barrier_held(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Begin a transaction with the barrier held exclusively. New rounds of the drains wait for the commit.

    Raises:
        OperationalError: running rounds did not end within 5 seconds.
    """
    with engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
        connection.execute(LOCK_BARRIER)
        yield connection


def choose_name(engine: sa.Engine, client: OpenSearch, prefix: str, generation_id: int) -> None:
    """Move from `requested` to `creating`, with an unused index name."""
    existing = indices.existing(client, prefix)
    with engine.begin() as connection:
        name = connection.execute(REQUESTED, {"id": generation_id}).scalar_one_or_none()
        if name in existing:
            name = generations.free_name(connection, existing, prefix)
        connection.execute(TO_CREATING, {"id": generation_id, "index_name": name})


def begin_filling(
    engine: sa.Engine, client: OpenSearch, prefix: str, generation_id: int, replicas: int | None = None
) -> None:
    """Divide the table into slices, create the index, and move from `creating` to `filling`.

    From then on the drains write the index too. The generation's row stays locked throughout: otherwise the generation
    could be cancelled and removed before the index exists.
    """
    with engine.begin() as connection:
        creating = connection.execute(CREATING, {"id": generation_id}).one_or_none()
        if creating is None:
            return
        name = creating.index_name
        connection.execute(sa.text("SET LOCAL statement_timeout = '5min'"))
        fill.divide_table(connection, generation_id)
        # Before the barrier, because no change becomes searchable while a transaction holds the barrier.
        total = connection.execute(COUNT_CONSUMERS).scalar_one()
        if name not in indices.existing(client, prefix):
            owner = installation.read(connection)
            indices.create(client, name, owner, shards=creating.shards, replicas=replicas)
        uuid = indices.existing(client, prefix)[name].uuid
        connection.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
        connection.execute(LOCK_BARRIER)
        connection.execute(TO_FILLING, generations.DECLARED | {"id": generation_id, "index_uuid": uuid, "total": total})
    log.info("rebuild_filling", index=name)


def end_filling(engine: sa.Engine, generation_id: int) -> bool:
    """Move from `filling` to `refilling` if every slice is done; return whether the phase changed.

    From then on the drains refresh the index after each write.
    """
    with barrier_held(engine) as connection:
        return bool(connection.execute(TO_REFRESHED, {"id": generation_id}).rowcount)


def move(engine: sa.Engine, generation_id: int, phase: Literal["refilling", "verifying", "swapping"]) -> bool:
    """Change the phase of a generation in the state `refreshed`; return False if the state has changed."""
    with engine.begin() as connection:
        return bool(connection.execute(TO_PHASE, {"id": generation_id, "phase": phase}).rowcount)


def record_verified(
    engine: sa.Engine, generation_id: int, position: str, last: str | None, differences: int
) -> int | None:
    """Record the ids after `position`, up to `last`, as verified; return the number of differences so far.

    Returns None, and records nothing, if the rebuild is no longer verifying at `position`: paused, cancelled, or
    another worker verified the range.
    """
    values = {"id": generation_id, "position": position, "last": last or position, "differences": differences}
    with engine.begin() as connection:
        total: int | None = connection.execute(VERIFIED, values).scalar_one_or_none()
    return total


def swap(engine: sa.Engine, client: OpenSearch, prefix: str, generation_id: int) -> bool:
    """Make a generation without misses live, and keep the previous live generation; return False if not ready.

    Raises:
        OpenSearchException, SearchError: reads may use either index. Both are up to date, and the rows are unchanged.
    """
    with barrier_held(engine) as connection:
        ready = connection.execute(READY_TO_SWAP, {"id": generation_id}).one_or_none()
        if ready is None:
            return False
        index = indices.existing(client, prefix).get(ready.index_name)
        if index is None or index.uuid != ready.index_uuid:
            return False
        indices.switch_reads(client, prefix, ready.index_name)
        for statement in SWAP:
            connection.execute(statement, {"id": generation_id, "hours": KEEP_HOURS})
    log.info("index_swapped", index=ready.index_name)
    return True


def abandon(engine: sa.Engine, generation_id: int, error: str | None = None) -> None:
    """Drop the generation being built: `failed` with an error, else `cancelled`. Reads never used the index."""
    with barrier_held(engine) as connection:
        connection.execute(ABANDON, {"id": generation_id, "error": error and error[:500]})
    log.warning("rebuild_ended", generation=generation_id, reason=error or "cancelled")


def record_postponed(engine: sa.Engine, reason: str | None) -> None:
    """Record why a step of the running rebuild failed and will be repeated; None after the step succeeded."""
    with engine.begin() as connection:
        connection.execute(POSTPONED, {"error": reason and reason[:500]})


def expire(engine: sa.Engine) -> None:
    """Drop kept generations after `keep_until`."""
    with barrier_held(engine) as connection:
        for index_name in connection.execute(EXPIRE).scalars():
            log.info("generation_dropped", index=index_name)


def remove_dropped(engine: sa.Engine, client: OpenSearch, prefix: str) -> None:
    """Delete the indices, slices and misses of dropped generations. No process writes or reads dropped generations.

    Raises:
        OpenSearchException, SearchError: an index may still exist.
    """
    with engine.connect() as connection:
        dropped = connection.execute(TO_REMOVE).all()
        live = generations.live(connection)
    for row in dropped:
        existing = indices.existing(client, prefix)
        index = existing.get(row.index_name)
        # Reads may still use this index after a swap without a commit.
        if index and live and naming.read_alias(prefix) in index.aliases and live.index_name in existing:
            indices.switch_reads(client, prefix, live.index_name)
        indices.delete(client, row.index_name)
        with engine.begin() as connection:
            connection.execute(DELETE_SLICES, {"id": row.id})
        while _delete_misses(engine, row.id):
            pass
        with engine.begin() as connection:
            connection.execute(REMOVED, {"id": row.id})


def _delete_misses(engine: sa.Engine, generation_id: int) -> bool:
    """Delete some misses of a generation; return whether misses may be left."""
    with engine.begin() as connection:
        values = {"id": generation_id, "rows": MISSES_PER_DELETE}
        return connection.execute(DELETE_MISSES, values).rowcount == MISSES_PER_DELETE


def record_lost(connection: sa.Connection, generation_id: int) -> bool:
    """Record a generation's index as gone or replaced; return False if recorded already.

    A generation being built is cancelled with an error, a kept generation expires, a live one waits for a rebuild.
    """
    return bool(connection.execute(LOST, {"id": generation_id}).rowcount)


def remove_again(connection: sa.Connection, names: Sequence[str]) -> bool:
    """Have existing indices of removed generations deleted; return whether there are any."""
    return bool(connection.execute(REMOVE_AGAIN, {"names": list(names)}).rowcount)


def record_found_again(connection: sa.Connection, generation_id: int) -> None:
    """Record the return of the live generation's own index."""
    connection.execute(FOUND_AGAIN, {"id": generation_id})


def record_seq_nos(connection: sa.Connection, generation_id: int, seq_nos: list[int]) -> None:
    """Record for each shard the sequence number of the last operation on disk in every copy; -1 for an unknown one."""
    connection.execute(RECORD_SEQ_NOS, {"id": generation_id, "seq_nos": seq_nos})


def disown_uuid(connection: sa.Connection, generation_id: int) -> None:
    """Change the recorded UUID, so that the index with the present UUID counts as a replacement."""
    connection.execute(DISOWN_UUID, {"id": generation_id})
