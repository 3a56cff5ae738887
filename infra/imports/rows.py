"""Reads a CSV file as records, each with the line it starts on; what is wrong with one stops none of the others."""

import codecs
import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

CHUNK_ROWS = 5000
# Far above any value that could be stored, far below what would hurt: an unclosed quote takes no more than this.
FIELD_CHARACTERS = 1024 * 1024
SCAN_BYTES = 1024 * 1024


class ImportFailed(Exception):  # noqa: N818 (read as a sentence where it is raised)
    """The import cannot start or go on; the message is for whoever runs it."""


class Record(NamedTuple):
    line: int
    """Where it starts in the file; the header is line 1."""
    cells: list[str]
    fault: str = ""
    """Why it is no row; if it is not even CSV, `cells` is the text as it stands in the file."""


class Chunk(NamedTuple):
    records: list[Record]
    end: int
    """Bytes of the file read so far."""


class Reader:
    """The records of an open file, without the blank lines."""

    def __init__(self, file: TextIO) -> None:
        csv.field_size_limit(FIELD_CHARACTERS)
        self._file = file
        self._text: list[str] = []
        # Not strict, the parser would let an unclosed quote at the end swallow rows without a word.
        self._csv = csv.reader(self._lines(), strict=True)
        header = next(self._records(), None)
        if header is None:
            raise ImportFailed("The file is empty: its first line must name the columns")
        if header.fault:
            raise ImportFailed(f"The first line, which must name the columns, is {header.fault}")
        self.header = header.cells

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """So many records at a time."""
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
    """Read the file once through, so that a wrong encoding is found before anything is stored.

    Raises:
        ImportFailed: it is not UTF-8, naming the first line that is not.
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
