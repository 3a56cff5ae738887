"""Move the floors of the outbox (`infra/database/floors.py`).

A floor may move to a number when no row below waits, and none can appear. A row can appear late, because a transaction
takes the number before it commits. The order of steps excludes this:

1. Read the last number of the sequence.
2. List the transactions that have a lock to write the outbox. A transaction takes the lock before its first number,
   and keeps it until its end. So all numbers up to the last belong to these transactions, or to ended ones.
3. When all of them have ended, look for the first waiting row up to the last number. The floor moves there, or above
   the last number.

The oldest snapshot (`pg_snapshot_xmin`) would be a simpler condition, but any transaction with a number holds it back:
in another database, or with a temporary table.
"""

from typing import NamedTuple

import sqlalchemy as sa
import structlog

from infra.database.floors import USE_INDEX_ORDER, WAITING
from infra.operations.outbox import LANES

log = structlog.get_logger()

MAX_STEP = 500_000
"""Numbers a move looks at, so that a transaction is short after a long pause."""

POSITION = sa.text("""
    SELECT coalesce(max(seq), 0) AS floor,
        coalesce(pg_sequence_last_value(CAST('outbox_seq_seq' AS regclass)), 0) AS last
    FROM outbox_floors WHERE lane = :lane""")
# A prepared transaction has no process.
WRITERS = sa.text("""
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND relation = CAST('outbox' AS regclass)
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        AND granted AND pid IS DISTINCT FROM pg_backend_pid()""")
FIRST_WAITING = sa.text(f"""
    SELECT seq FROM outbox WHERE lane = :lane AND {WAITING} AND seq BETWEEN :floor AND :last ORDER BY seq LIMIT 1""")
MOVE = sa.text("""
    WITH added AS (INSERT INTO outbox_floors (lane, seq) VALUES (:lane, :seq) ON CONFLICT DO NOTHING)
    DELETE FROM outbox_floors WHERE lane = :lane AND seq BETWEEN :floor AND :seq - 1""")
REMOVE = sa.text("DELETE FROM outbox_floors WHERE lane = :lane")


class _Candidate(NamedTuple):
    last: int
    writers: frozenset[str]


class Floors:
    """Moves the floors of all lanes. Several processes may do so at the same time."""

    def __init__(self) -> None:
        self._candidates: dict[str, _Candidate] = {}

    def move(self, connection: sa.Connection) -> bool:
        """Move each floor, by `MAX_STEP` numbers at most; return whether another move can follow at once.

        Args:
            connection: in a transaction with a new snapshot for each statement (`READ COMMITTED`), and without changes
                of the outbox.

        Raises:
            DBAPIError: the database is unavailable.
        """
        connection.execute(USE_INDEX_ORDER)
        is_behind = [self._move(connection, lane) for lane in LANES]
        return any(is_behind)

    def _move(self, connection: sa.Connection, lane: str) -> bool:
        floor, last = connection.execute(POSITION, {"lane": lane}).one()
        if floor > last + 1:
            # The sequence was set back, for example by a restore without the sequences.
            log.warning("floor_removed", lane=lane, floor=floor, last=last)
            connection.execute(REMOVE, {"lane": lane})
            self._candidates.pop(lane, None)
            return False
        candidate = self._candidates.get(lane)
        if candidate is None and floor == last + 1:
            return False
        writers = frozenset(connection.execute(WRITERS).scalars())
        if candidate is None:
            candidate = _Candidate(min(last, floor + MAX_STEP), writers)
        candidate = candidate._replace(writers=candidate.writers & writers)
        self._candidates[lane] = candidate
        if candidate.writers:
            return False
        del self._candidates[lane]
        values = {"lane": lane, "floor": floor, "last": candidate.last}
        first = connection.execute(FIRST_WAITING, values).scalar_one_or_none()
        seq = candidate.last + 1 if first is None else first
        if seq > floor:
            connection.execute(MOVE, values | {"seq": seq})
        return first is None and candidate.last < last
