"""Find rows that contradict each other by their keys, before any row is stored.

The keys of a file may need more space than the memory, so SQLite holds their hashes in a temporary file.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

MAX_LINES = 3
CREATE = "CREATE TABLE keys (line INTEGER PRIMARY KEY, external_id INTEGER, number INTEGER, email INTEGER)"
INSERT = "INSERT INTO keys VALUES (?, ?, ?, ?)"
WITH_DIFFERENT = """
SELECT {key}, line FROM keys
WHERE {key} IN (SELECT {key} FROM keys GROUP BY {key} HAVING min({other}) <> max({other}))
ORDER BY line
"""
REPEATED = """
SELECT {key}, line FROM keys WHERE {key} IN (SELECT {key} FROM keys GROUP BY {key} HAVING count(*) > 1) ORDER BY line
"""


class RowKeys(NamedTuple):
    """Hashes of the keys of a row."""

    line: int
    external_id: int | None
    number: int | None
    """Of the external id without decimals."""
    email: int | None


class Conflicts:
    """The keys of a file, and the reason for each line whose keys contradict other lines."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._reasons: dict[int, list[str]] = defaultdict(list)
        database.execute(CREATE)

    def read(self, keys: Iterable[RowKeys]) -> None:
        self._database.executemany(INSERT, keys)

    @property
    def reasons(self) -> dict[int, str]:
        return {line: "; ".join(texts) for line, texts in self._reasons.items()}

    def find_people(self, external_id: str) -> None:
        """Find rows with one externalId and several e-mail addresses, or the reverse.

        Args:
            external_id: `external_id`, or `number` for ids with decimals.
        """
        for key, other, title, plural in (
            (external_id, "email", "externalId", "e-mail addresses"),
            ("email", external_id, "email", "externalIds"),
        ):
            self._find(
                WITH_DIFFERENT.format(key=key, other=other),
                f"{title}: lines {{}} have the same {title} and different {plural}: correct them",
            )

    def find_notations(self) -> None:
        """Find rows whose externalId is the same number with and without decimals."""
        self._find(
            WITH_DIFFERENT.format(key="number", other="external_id"),
            "externalId: lines {} have the same number with and without decimals, such as 12 and 12.0: correct them",
        )

    def find_scattered(self, external_id: str) -> None:
        """Find the records of one order, which has other orders between its rows.

        Args:
            external_id: `external_id`, or `number` for ids with decimals.
        """
        self._find(
            REPEATED.format(key=external_id),
            "externalId: lines {} begin rows of the same order, with rows of other orders between: sort the file by "
            "this column",
        )

    def _find(self, query: str, reason: str) -> None:
        lines: dict[int, list[int]] = defaultdict(list)
        for value, line in self._database.execute(query):
            lines[value].append(line)
        for group in lines.values():
            for line in group:
                self._reasons[line].append(reason.format(_listed(group)))


@contextmanager
def opened() -> Iterator[Conflicts]:
    with closing(sqlite3.connect("")) as database:
        yield Conflicts(database)


def _listed(lines: list[int]) -> str:
    shown = list(map(str, lines[:MAX_LINES]))
    if len(lines) > MAX_LINES:
        return f"{', '.join(shown)} and {len(lines) - MAX_LINES:,} further lines"
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
