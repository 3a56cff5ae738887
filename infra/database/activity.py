"""The activity of the indexer's parts, as seen by PostgreSQL.

Each process of the indexer names its sessions and queries the database every four seconds at least. A part with a
recent query is active. A connection alone does not count, because a hanging process is connected too.

A worker that cannot reach OpenSearch changes the name of its session: it is alive, but its lane needs another process.
"""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

PREFIX = "indexer:"
PERIODIC_DRAIN_SECONDS = {"live": 1.0, "bulk": 4.0}
"""By lane, the seconds between two periodic drains: the longest time without a query of an active worker."""
CUT_OFF = ":cut-off"
"""Suffix of the name while the worker does not reach OpenSearch."""
SECONDS_SINCE_QUERY = sa.text("""
    SELECT extract(epoch FROM clock_timestamp() - max(query_start))::float8 FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = ANY(:names)""")
ACTIVE_SECONDS = 15.0
"""A process without a query for so long is not counted."""
ACTIVITIES = sa.text("""
    SELECT p.part, extract(epoch FROM clock_timestamp() - max(a.query_start))::float8 AS silent_seconds,
        count(*) FILTER (WHERE a.query_start > clock_timestamp() - :seconds * interval '1 second')::int AS processes
    FROM unnest(CAST(:parts AS text[]), CAST(:names AS text[])) WITH ORDINALITY AS p (part, name, number)
    LEFT JOIN pg_stat_activity a
        ON a.datname = current_database() AND a.application_name IN (p.name, p.name || :cut_off)
    GROUP BY p.part, p.number ORDER BY p.number""")
RENAME = sa.text("SELECT set_config('application_name', :name, false)")


class Activity(NamedTuple):
    """The activity of a part, over all its processes."""

    part: str
    silent_seconds: float | None
    """Since the last query of any process; None if none is connected."""
    processes: int
    """Processes with a recent query."""


def application_name(part: str) -> str:
    """Return the name of a part's sessions in the database. The parts include the lanes and `clock` (beat)."""
    return f"{PREFIX}{part}"


def seconds_since_query(connection: sa.Connection, part: str, *, unless_cut_off: bool = False) -> float | None:
    """Return the seconds since the part's last query; None if the part is not connected.

    Args:
        connection: to the database of the part.
        part: of the indexer.
        unless_cut_off: leave out sessions of workers that do not reach OpenSearch.
    """
    name = application_name(part)
    names = [name] if unless_cut_off else [name, name + CUT_OFF]
    seconds: float | None = connection.execute(SECONDS_SINCE_QUERY, {"names": names}).scalar_one()
    return seconds


def activities(connection: sa.Connection, parts: Sequence[str]) -> list[Activity]:
    """Return the activity of each part."""
    values = {
        "parts": list(parts),
        "names": [application_name(part) for part in parts],
        "cut_off": CUT_OFF,
        "seconds": ACTIVE_SECONDS,
    }
    return [Activity(*row) for row in connection.execute(ACTIVITIES, values)]


def show_reachability(connection: sa.Connection, part: str, *, is_cut_off: bool) -> None:
    """Show in the session's name whether this process of the part reaches OpenSearch, and count as a query."""
    connection.execute(RENAME, {"name": application_name(part) + (CUT_OFF if is_cut_off else "")})
