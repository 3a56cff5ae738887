"""The activity of the indexer's parts, as seen by PostgreSQL.

Each process of the indexer names its sessions and queries the database every second. A part with a recent query is
active. A connection alone does not count, because a hanging process is connected too.
"""

import sqlalchemy as sa

PREFIX = "indexer:"
SECONDS_SINCE_QUERY = sa.text("""
    SELECT extract(epoch FROM clock_timestamp() - max(query_start))::float8 FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = :name""")


def application_name(part: str) -> str:
    """Return the name of a part's sessions in the database. The parts include the lanes and `clock` (beat)."""
    return f"{PREFIX}{part}"


def seconds_since_query(connection: sa.Connection, part: str) -> float | None:
    """Return the seconds since the part's last query; None if the part is not connected."""
    seconds: float | None = connection.execute(SECONDS_SINCE_QUERY, {"name": application_name(part)}).scalar_one()
    return seconds
