"""Who of the indexer is at work, as PostgreSQL sees it: each process has a name, and asks something each second.

So what counts as working is having looked for changes, not being connected to anything.
"""

import sqlalchemy as sa

PREFIX = "indexer:"
SILENCE = sa.text("""
    SELECT extract(epoch FROM clock_timestamp() - max(query_start))::float8 FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = :name""")


def application_name(part: str) -> str:
    """What its sessions are called; `part` is a lane, or `clock`."""
    return f"{PREFIX}{part}"


def seconds_since_query(connection: sa.Connection, part: str) -> float | None:
    """Seconds since this part of the indexer asked the database anything; None if it is not connected."""
    found: float | None = connection.execute(SILENCE, {"name": application_name(part)}).scalar_one()
    return found
