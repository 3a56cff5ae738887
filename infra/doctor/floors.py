"""Check of the floors of the outbox: a floor that does not move makes each scan walk through deleted rows."""

import time
from collections.abc import Iterator

import sqlalchemy as sa

from infra.database.floors import NEAR, USE_INDEX_ORDER, WAITING, floor
from infra.doctor.checks import Check, Finding, Servers
from infra.operations.outbox import LANES

SECONDS = 60
"""A transaction may hold a floor for so long."""
PATIENCE_SECONDS, POLL_SECONDS = 2.0, 0.25
"""Beat moves the floors several times a second, so just after an import a floor may be behind for a moment."""
# Rows that were added meanwhile hold a floor rightly, so their first is compared, and not the last number.
BEHIND = sa.text(f"""
    SELECT coalesce(
        (SELECT seq FROM outbox WHERE lane = :lane AND {WAITING} AND seq >= {floor(":lane")} ORDER BY seq LIMIT 1),
        pg_sequence_last_value('outbox_seq_seq') + 1) - {floor(":lane")}""")
# A prepared transaction has no process.
HOLDERS = sa.text("""
    SELECT DISTINCT a.pid, a.application_name, p.gid
    FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    LEFT JOIN pg_prepared_xacts p ON l.virtualtransaction = '-1/' || p.transaction
    WHERE l.locktype = 'relation' AND l.relation = CAST('outbox' AS regclass) AND l.granted
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        -- The start of another role's transaction may be hidden.
        AND coalesce(a.xact_start, p.prepared, '-infinity') < now() - :seconds * interval '1 second'""")


def moves(servers: Servers) -> Iterator[Finding]:
    """Find a floor far below the first waiting row, and the transactions that hold the floor."""
    with servers.engine.connect() as connection:
        until = time.monotonic() + PATIENCE_SECONDS
        while (behind := _behind(connection)) and time.monotonic() < until:
            connection.commit()
            time.sleep(POLL_SECONDS)
        holders = connection.execute(HOLDERS, {"seconds": SECONDS}).all() if behind else []
    for lane, number in behind.items():
        problem = f"The floor of the lane {lane} is {number:,} numbers below its first waiting row"
        if not holders:
            yield Finding(problem, "Start beat, which moves the floors, or look in its log for `look_postponed`")
        for holder in holders:
            if holder.pid is None:
                yield Finding(
                    f"{problem}, because the prepared transaction {holder.gid} has changes of consumers",
                    "Run COMMIT PREPARED or ROLLBACK PREPARED with its name",
                )
            else:
                yield Finding(
                    f"{problem}, because process {holder.pid} ({holder.application_name}) has a transaction with "
                    f"changes of consumers, open for more than {SECONDS} seconds",
                    f"End the transaction: SELECT pg_terminate_backend({holder.pid})",
                )


def _behind(connection: sa.Connection) -> dict[str, int]:
    """Return how far the floor is below the first waiting row, for each lane where it is too far."""
    connection.execute(USE_INDEX_ORDER)
    numbers = {lane: connection.execute(BEHIND, {"lane": lane}).scalar_one() or 0 for lane in LANES}
    return {lane: number for lane, number in numbers.items() if number > NEAR}


CHECKS: tuple[Check, ...] = (moves,)
