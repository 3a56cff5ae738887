"""The activity of the indexer's parts, as seen by PostgreSQL.

Each process of the indexer names its sessions and queries the database every second. A part with a recent query is
active. A connection alone does not count, because a hanging process is connected too.

A worker that cannot reach OpenSearch changes the name of its session: it is alive, but its lane needs another process.
"""

import sqlalchemy as sa

PREFIX = "indexer:"
CUT_OFF = ":cut-off"
"""Suffix of the name while the worker does not reach OpenSearch."""
SECONDS_SINCE_QUERY = sa.text("""
    SELECT extract(epoch FROM clock_timestamp() - max(query_start))::float8 FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = ANY(:names)""")
RENAME = sa.text("SELECT set_config('application_name', :name, false)")


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


def show_reachability(connection: sa.Connection, part: str, *, is_cut_off: bool) -> None:
    """Show in the session's name whether this process of the part reaches OpenSearch, and count as a query."""
    connection.execute(RENAME, {"name": application_name(part) + (CUT_OFF if is_cut_off else "")})
