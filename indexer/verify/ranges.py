"""Ranges of consumer ids: the unit of progress of comparisons and reindexes."""

from collections.abc import Iterator
from typing import NamedTuple

import sqlalchemy as sa

RANGE_ROWS = 2_000
"""Consumers of a range."""

_LAST_ID = """
    SELECT c.id FROM consumers c WHERE c.id > :after {scope} ORDER BY c.id OFFSET :rows - 1 LIMIT 1"""
LAST_ID = sa.text(_LAST_ID.format(scope=""))
LAST_ID_OF_ENVIRONMENT = sa.text(_LAST_ID.format(scope="AND c.environment_id = :environment_id"))


class IdRange(NamedTuple):
    """The ids greater than `after`, up to and including `last`; without `last`, all greater ids."""

    after: str
    last: str | None


def id_ranges(
    engine: sa.Engine, environment_id: int | None, after: str = "", rows: int = RANGE_ROWS
) -> Iterator[IdRange]:
    """Divide the ids greater than `after` into ranges with `rows` consumers each; the last range has no end.

    Args:
        engine: a connection is used for each range.
        environment_id: count only the consumers of this environment.
        after: the position to continue from.
        rows: consumers of a range.
    """
    statement = LAST_ID if environment_id is None else LAST_ID_OF_ENVIRONMENT
    last: str | None = after
    while last is not None:
        with engine.connect() as connection:
            values = {"after": after, "rows": rows, "environment_id": environment_id}
            last = connection.execute(statement, values).scalar_one_or_none()
        yield IdRange(after, last)
        after = last or ""
