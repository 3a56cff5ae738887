"""Measure how much each environment stores, for the limit of an environment (`api/storage.py`).

A sample of the pages of each table is read, so the cost does not grow with the tables, and writes pay nothing. A table
smaller than the sample is measured exactly. For a larger table the result is a lower bound: three standard deviations
below the estimate, so that chance never stops the writes of an environment below its limit.
"""

import sqlalchemy as sa

TABLES = ("consumers", "orders", "audiences", "audience_members", "idempotency_keys")
SAMPLE_PAGES = 10_000
"""Pages of 8 KiB read of each table."""
PERCENT = "least(100, 100.0 * :pages * 8192 / greatest(pg_relation_size('{table}'), 1))"
SAMPLE = """
    SELECT environment_id, sum(pg_column_size(t.*)) AS bytes, count(DISTINCT (t.ctid::text::point)[0]) AS pages,
        (SELECT {percent}) / 100 AS part
    FROM {table} t TABLESAMPLE SYSTEM ({percent}) GROUP BY environment_id"""
SAMPLES = " UNION ALL ".join(SAMPLE.format(table=table, percent=PERCENT.format(table=table)) for table in TABLES)
# Small changes are not stored, so few rows are written.
STORE = sa.text(f"""
    WITH measured AS (
        SELECT environment_id, sum(bytes / part * greatest(0, 1 - 3 * sqrt((1 - part) / pages))) / 1048576 AS mib
        FROM ({SAMPLES}) AS samples GROUP BY environment_id),
    current AS (
        SELECT e.id, floor(coalesce(m.mib, 0))::int AS mib
        FROM environments e LEFT JOIN measured m ON m.environment_id = e.id)
    UPDATE environments e SET stored_mib = current.mib FROM current
    WHERE e.id = current.id AND abs(e.stored_mib - current.mib) * 100 > e.stored_mib""")


def measure(engine: sa.Engine, pages: int = SAMPLE_PAGES) -> int:
    """Store how many MiB of rows each environment has; return the number of environments with a changed number.

    Raises:
        DBAPIError: the database is unavailable.
    """
    with engine.begin() as connection:
        return connection.execute(STORE, {"pages": pages}).rowcount
