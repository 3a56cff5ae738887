"""Many environments that write at the same time, with SQL, because the API on the same cores would be the limit."""

import itertools
import time
from collections import Counter
from typing import NamedTuple, Self

import psycopg
import sqlalchemy as sa

from tests.service import Database

SLICES = 10
"""Number of transactions for a consumer in each environment."""
CREATE = sa.text("""
    WITH o AS (
        INSERT INTO organizations (name)
        SELECT 'crowd ' || gen_random_uuid() FROM generate_series(1, :number) RETURNING id)
    INSERT INTO environments (organization_id, mode) SELECT id, 'live' FROM o""")
RANGE = sa.text("""
    SELECT min(e.id), max(e.id) FROM environments e JOIN organizations o ON o.id = e.organization_id
    WHERE o.name LIKE 'crowd %'""")
INSERT = (
    "INSERT INTO consumers (environment_id, full_name) SELECT e, 'Person' FROM generate_series(%s::int, %s::int) AS e"
)


def create_crowd(database: Database, environments: int) -> None:
    """Create environments with consecutive ids."""
    with database.engine.begin() as connection:
        connection.execute(CREATE, {"number": environments})


def crowd(database: Database) -> tuple[int, int]:
    """Return the lowest and the highest id of the environments."""
    with database.engine.connect() as connection:
        first, last = connection.execute(RANGE).one()
    return int(first), int(last)


class Rows(NamedTuple):
    """A load: a new consumer in each environment of a range, at a steady rate."""

    database_url: str
    first: int
    last: int
    every: float
    """Seconds between two consumers of an environment."""

    def prepared(self, seconds: float) -> Self:
        del seconds
        return self

    def run(self, seconds: float) -> Counter[str]:
        starts = [self.first + (self.last + 1 - self.first) * part // SLICES for part in range(SLICES + 1)]
        started, counts = time.monotonic(), Counter[str]()
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            for number in itertools.count():
                due = number * self.every / SLICES
                if max(due, time.monotonic() - started) >= seconds:
                    break
                time.sleep(max(0.0, started + due - time.monotonic()))
                part = number % SLICES
                counts["rows"] += connection.execute(INSERT, (starts[part], starts[part + 1] - 1)).rowcount
        return counts
