"""Sort the records of a file of orders by consumer, so that all orders of a consumer are in one chunk.

Files of orders are mostly sorted by time. In that order a chunk changes the totals of nearly as many consumers as it
has orders. Each change costs a version, a row of the feed and a new document, in random places of the tables. SQLite
holds the records in a temporary file, because a file may need more space than the memory.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice

import msgspec

from infra.imports import exported
from infra.imports.columns import Column, Columns, texts_reader
from infra.imports.exported import REFERENCES
from infra.imports.rows import Chunk, Record

EXTERNAL_ID = "externalId"
# A new temporary file needs no journal. The memory is for sorting.
SETTINGS = "PRAGMA journal_mode = off; PRAGMA cache_size = -65536"
CREATE = "CREATE TABLE records (line INTEGER PRIMARY KEY, consumer TEXT, external_id INTEGER, record BLOB)"
INSERT = "INSERT INTO records VALUES (?, ?, ?, ?)"
# The order of the file matters in two cases. A row without a consumer changes the order of a row above. If rows of an
# order name different consumers, the first row counts.
PROPERTIES = """
SELECT EXISTS (SELECT 1 FROM records WHERE consumer IS NULL) OR EXISTS (
    SELECT 1 FROM records WHERE external_id IS NOT NULL GROUP BY external_id HAVING min(consumer) <> max(consumer)),
    (SELECT count(*) FROM records)
"""
# The shorter ids first: mostly the order of the creation of the consumers, and of their rows in the tables.
BY_CONSUMER = "SELECT record FROM records ORDER BY length(consumer), consumer, line"
BY_LINE = "SELECT record FROM records ORDER BY line"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


def reference(columns: Columns) -> Column | None:
    """Return the column with the names of the consumers; None without such a column, or with several."""
    named = [column for column in columns.fields if column.name in REFERENCES]
    return named[0] if len(named) == 1 else None


@contextmanager
def sorted_chunks(
    records: Iterable[Record], columns: Columns, column: Column, rows: int, size: int
) -> Iterator[Iterator[Chunk]]:
    """Read all records, and give chunks of them, sorted by the consumer.

    The records stay in the order of the file if the result could depend on it.

    Args:
        records: of the file.
        columns: of the file.
        column: with the names of the consumers.
        rows: maximum of records in a chunk.
        size: of the file, in bytes.
    """
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        database.executescript(SETTINGS)
        database.execute(CREATE)
        database.execute("BEGIN")
        database.executemany(INSERT, _rows(records, columns, column))
        ((order_matters, total),) = database.execute(PROPERTIES)
        contents = database.execute(BY_LINE if order_matters else BY_CONSUMER)
        yield _chunks(contents, rows, size / max(total, 1))


def _chunks(contents: Iterator[tuple[bytes]], rows: int, bytes_of_record: float) -> Iterator[Chunk]:
    count = 0
    while chunk := [_decode(content) for (content,) in islice(contents, rows)]:
        count += len(chunk)
        yield Chunk(chunk, round(count * bytes_of_record))


def _rows(
    records: Iterable[Record], columns: Columns, column: Column
) -> Iterator[tuple[int, str | None, int | None, bytes]]:
    read_texts = texts_reader([column, *(each for each in columns.fields if each.name == EXTERNAL_ID)])
    for record in records:
        consumer: str | None = ""
        external_id = None
        if not record.fault:
            texts = read_texts(columns.row(record.cells))
            if columns.export:
                exported.convert_ids(texts)
            consumer, external_id = texts.get(column.name), texts.get(EXTERNAL_ID)
        yield record.line, consumer, hash(external_id) if external_id else None, _encode(record)
