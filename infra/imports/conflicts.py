"""Find the rows of different people with the same key, before any row is stored."""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing

from infra import emails
from infra.imports.columns import Columns, texts_reader
from infra.imports.rows import Record

MAX_LINES = 3
CREATE = "CREATE TABLE keys (line INTEGER PRIMARY KEY, external_id INTEGER, email INTEGER)"
INSERT = "INSERT INTO keys VALUES (?, ?, ?)"
CONFLICTS = """
SELECT {key}, line FROM keys
WHERE {key} IN (SELECT {key} FROM keys GROUP BY {key} HAVING min({other}) <> max({other}))
ORDER BY line
"""


def conflicts(records: Iterable[Record], columns: Columns) -> dict[int, str]:
    """Return the line and the reason of each row whose externalId has several e-mail addresses, or the reverse.

    The keys of a file may need more space than the memory, so SQLite holds their hashes in a temporary file.
    """
    keys = [column for column in columns.fields if column.name in {"externalId", "email"}]
    reasons: dict[int, list[str]] = defaultdict(list)
    with closing(sqlite3.connect("")) as database:
        database.execute(CREATE)
        database.executemany(INSERT, _keys(records, columns, texts_reader(keys)))
        for key, other, title, plural in (
            ("external_id", "email", "externalId", "e-mail addresses"),
            ("email", "external_id", "email", "externalIds"),
        ):
            lines: dict[int, list[int]] = defaultdict(list)
            for value, line in database.execute(CONFLICTS.format(key=key, other=other)):
                lines[value].append(line)
            for group in lines.values():
                reason = f"{title}: lines {_listed(group)} have the same {title} and different {plural}: correct them"
                for line in group:
                    reasons[line].append(reason)
    return {line: "; ".join(texts) for line, texts in reasons.items()}


def _keys(
    records: Iterable[Record], columns: Columns, read_texts: Callable[[Sequence[str]], dict[str, str]]
) -> Iterator[tuple[int, int | None, int | None]]:
    for record in records:
        if not record.fault:
            texts = read_texts(columns.row(record.cells))
            external_id, email = texts.get("externalId"), texts.get("email")
            yield record.line, hash(external_id) if external_id else None, hash(emails.fold(email)) if email else None


def _listed(lines: list[int]) -> str:
    shown = list(map(str, lines[:MAX_LINES]))
    if len(lines) > MAX_LINES:
        return f"{', '.join(shown)} and {len(lines) - MAX_LINES:,} further lines"
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
