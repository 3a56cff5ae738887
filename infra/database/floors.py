"""Where the scans of the outbox begin: the floor of a lane.

A held snapshot (`pg_dump`, a long query) keeps deleted rows, millions on a busy day, and each scan of an index would
walk through them. So every scan has a lower limit: `seq >= floor`. Every waiting row of a lane has a `seq` of at least
the floor of the lane. `indexer/floors.py` moves the floors. A floor that does not move only costs time.

A row waits until it is deleted or refused. A refused row, whether it is parked or retried later, does not hold the
floor. When it waits again, a trigger gives it a new `seq`.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

WAITING = "parked_at IS NULL AND retry_at IS NULL"
REFUSED = "(parked_at IS NOT NULL OR retry_at IS NOT NULL)"
"""As in the indexes of the migration 0018, so that the planner uses them."""
NEAR = 4_000
"""Numbers behind a floor that a scan may pass: about 1 ms."""


def floor(lane: str) -> str:
    """Return an SQL expression for the floor of a lane, which is itself an SQL expression."""
    return f"(SELECT coalesce(max(f.seq), 0) FROM outbox_floors f WHERE f.lane = {lane})"


def first_waiting(columns: str, lane: str) -> str:
    """Return a query for columns of the longest waiting row of a lane.

    A scan from the floor finds the row at once, or passes only the rows that were added since the last move of the
    floor.
    """
    return f"""
        SELECT {columns} FROM outbox
        WHERE lane = {lane} AND {WAITING} AND seq >= {floor(lane)} ORDER BY seq LIMIT 1"""


def is_near(lane: str) -> str:
    """Return an SQL condition: at most `NEAR` numbers were taken since the floor of a lane.

    Then a scan of all rows from the floor on costs less than a walk from environment to environment. The walk passes
    each environment that has deleted rows.
    """
    return f"(SELECT coalesce(pg_sequence_last_value('outbox_seq_seq'), 0) - {floor(lane)} < {NEAR})"


def all_waiting(columns: str, lane: str) -> str:
    """Return a query for columns of all waiting rows of a lane, the longest waiting first."""
    return f"""
        SELECT {columns} FROM outbox WHERE lane = {lane} AND {WAITING} AND seq >= {floor(lane)} ORDER BY seq"""


def rows_of_consumer(consumer_id: str, lane: str, seq: str) -> str:
    """Return the condition for rows of a consumer in a lane from a floor on.

    The form of the condition leaves the planner the index that begins with the consumer, and no other.
    """
    return f"consumer_id = {consumer_id} AND lane = {lane} AND (lane, seq) >= ({lane}, {seq})"


def rows_of_environment(environment_id: str, lane: str, seq: str) -> str:
    """Return the condition and the order for waiting rows of an environment in a lane from a floor on.

    With an equality of the environment, the index of `seq` would have the same order. The planner takes that index when
    the statistics say that the outbox is empty, and the scan passes the rows of all environments.
    """
    return f"""
        {WAITING} AND lane = {lane} AND environment_id >= {environment_id} AND environment_id <= {environment_id}
        AND seq >= {seq} ORDER BY environment_id, seq"""


LANE_FLOORS = f"""
    SELECT 'live' AS lane, {floor("'live'")} AS seq UNION ALL SELECT 'bulk', {floor("'bulk'")}"""
"""A query for both lanes with their floors."""

INDEX_ORDER = {"enable_sort": "off", "enable_bitmapscan": "off", "enable_seqscan": "off"}
"""Settings for scans of the outbox: each scan follows the order of an index, from the floor.

The planner counts visible rows only. So it would read an index from its beginning and sort the few rows that are left,
and that is the walk through deleted rows.
"""


def use_settings(settings: Mapping[str, str], *, is_local: bool = True) -> sa.Select[Any]:
    """Return a statement that makes settings for the transaction, or for the session."""
    return sa.select(*(sa.func.set_config(name, value, is_local) for name, value in settings.items()))


USE_INDEX_ORDER = use_settings(INDEX_ORDER)
"""Makes these settings for the transaction."""
