"""Read a CSV file as records, each with the number of its first line. A faulty record does not stop the next."""

import codecs
import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

CHUNK_ROWS = 5000
# Longer than any value that can be stored, and short enough for memory: an unclosed quote reads at most this much.
FIELD_CHARACTERS = 1024 * 1024
SCAN_BYTES = 1024 * 1024


class ImportFailed(Exception):  # noqa: N818 (read as a sentence where it is raised)
    """The import cannot start or continue; the message is shown to the user of the command."""


class Record(NamedTuple):
    line: int
    """Number of its first line in the file; the header is line 1."""
    cells: list[str]
    fault: str = ""
    """Why the record is not a row. For text that is not CSV, `cells` holds the text of the file."""


class Chunk(NamedTuple):
    records: list[Record]
    end: int
    """Number of bytes read from the file so far."""


class Reader:
    """Read the records of an open file, without its blank lines."""

    def __init__(self, file: TextIO) -> None:
        csv.field_size_limit(FIELD_CHARACTERS)
        self._file = file
        self._text: list[str] = []
        # A parser that is not strict silently loses rows to an unclosed quote at the end of the file.
        self._csv = csv.reader(self._lines(), strict=True)
        header = next(self._records(), None)
        if header is None:
            raise ImportFailed("The file is empty: its first line must name the columns")
        if header.fault:
            raise ImportFailed(f"The first line, which must name the columns, is {header.fault}")
        self.header = header.cells

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Yield chunks of up to `rows` records."""
        records = self._records()
        while chunk := list(islice(records, rows)):
            yield Chunk([self._checked(record) for record in chunk], self._file.buffer.tell())

    def _lines(self) -> Iterator[str]:
        for line in self._file:
            self._text.append(line)
            yield line

    def _records(self) -> Iterator[Record]:
        while True:
            self._text.clear()
            start = self._csv.line_num + 1
            try:
                cells = next(self._csv)
            except StopIteration:
                return
            except csv.Error as error:
                text = "".join(self._text).rstrip("\r\n")[:FIELD_CHARACTERS]
                yield Record(start, [text], _unreadable(error, start, self._csv.line_num))
            else:
                if cells:
                    yield Record(start, cells)

    def _checked(self, record: Record) -> Record:
        if record.fault or len(record.cells) == len(self.header):
            return record
        return record._replace(fault=f"{len(record.cells)} columns instead of {len(self.header)}")


def _unreadable(error: csv.Error, first: int, last: int) -> str:
    lines = f"lines {first} to {last} are " if last > first else ""
    hint = "; is a quote not closed?" if last > first else ""
    return f"{lines}not readable as CSV ({error}){hint}"


def check_encoding(path: Path) -> None:
    """Read the whole file once, to find a wrong encoding before any row is stored.

    Raises:
        ImportFailed: the file is not UTF-8; the message names the first faulty line.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = 1
    with path.open("rb") as file:
        while True:
            block = file.read(SCAN_BYTES)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line = lines + error.object[: error.start].count(b"\n")
                raise ImportFailed(f"Line {line} is not UTF-8: save the file with that encoding") from error
            if not block:
                return
            lines += block.count(b"\n")
