"""Read a CSV file as records, each with the number of its first line. A faulty record does not stop the next."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TextIO

from infra import fields
from infra.imports.sources import ImportFailed

CHUNK_ROWS = 5000
# Longer than any value that can be stored, and short enough for memory: an unclosed quote reads at most this much.
FIELD_CHARACTERS = 1024 * 1024
DELIMITERS = ",;\t|"
QUOTED = re.compile(r'"(?:[^"]|"")*("|\Z)')
# Spreadsheets write and read this line before the header.
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)

Key = Callable[[Sequence[str]], str]


class Record(NamedTuple):
    line: int
    """Number of its first line in the file; the header is line 1."""
    cells: list[str]
    fault: str = ""
    """Why the record is not a row. For text that is not CSV, `cells` holds the text of the file."""
    continued: Sequence[list[str]] = ()
    """Further rows of the record, such as further items of an order."""


class Chunk(NamedTuple):
    records: list[Record]
    end: int
    """Number of bytes read from the file so far."""


class Unread(NamedTuple):
    """The lines after a quote that never closes."""

    line: int
    lines: int

    def __str__(self) -> str:
        to = f" to {self.line + self.lines - 1}" if self.lines > 1 else ""
        return (
            f"Line {self.line}: a quote opens and never closes, so line {self.line}{to} ({self.lines:,} in all) was "
            "not read; the rows above were. Close the quote, or double it inside a cell, and import the file again"
        )


class Reader:
    """Read the records of an open file, without its blank rows and repetitions of its header."""

    def __init__(self, file: TextIO, delimiter: str | None = None) -> None:
        csv.field_size_limit(FIELD_CHARACTERS)
        self._file = file
        self._text: list[str] = []
        self._ended = False
        self._line = 0
        self.unread: Unread | None = None
        first = self._first_line()
        if separator := SEPARATOR_LINE.fullmatch(first):
            delimiter = delimiter or separator[1]
            first = self._first_line()
        self.delimiter = delimiter or _likely_delimiter(first)
        # A parser that is not strict silently loses rows to an unclosed quote at the end of the file.
        self._csv = csv.reader(self._lines(first), delimiter=self.delimiter, strict=True, skipinitialspace=True)
        self.header = self._header()
        self._names = [name.strip(fields.ENDS) for name in self.header]
        self._unnamed = [index for index, name in enumerate(self._names) if not name]

    def records(self, continued_by: Key | None = None) -> Iterator[Record]:
        """Yield the records.

        Args:
            continued_by: returns a text of a row; a row with an empty text, or with the text of the row above,
                continues the record above if that has a text.
        """
        rows = (record for record in self._records() if not self._is_header(record.cells))
        records: Iterator[Record] = map(self._checked, rows)
        return _joined(records, continued_by, len(self.header)) if continued_by else records

    def chunks(self, rows: int = CHUNK_ROWS, *, continued_by: Key | None = None) -> Iterator[Chunk]:
        """Yield the records in chunks of up to `rows` records; see `records`."""
        records = self.records(continued_by)
        while chunk := list(islice(records, rows)):
            yield Chunk(chunk, self._file.buffer.tell())

    def _header(self) -> list[str]:
        header = next(self._records(), None)
        if self.unread or (header and header.fault):
            reason = header.fault if header else "not readable as CSV: its quote never closes"
            raise ImportFailed(f"The first line, which must name the columns, is {reason}")
        if header is None:
            raise ImportFailed("The file is empty: its first line must name the columns")
        return _without_blank_end(header.cells)

    def _first_line(self) -> str:
        """Return the next line with content."""
        for line in self._file:
            self._line += 1
            content = line.removeprefix("\ufeff")  # the codec utf-16-le keeps the mark
            if content.strip(fields.ENDS + DELIMITERS):
                return content
        return ""

    def _lines(self, first: str) -> Iterator[str]:
        self._line -= 1  # the parser counts the first line
        self._text.append(first)
        yield first
        for line in self._file:
            self._text.append(line)
            yield line.removeprefix("\ufeff")  # the mark of a file put behind another
        self._ended = True

    def _records(self) -> Iterator[Record]:
        while True:
            self._text.clear()
            start = self._line + self._csv.line_num + 1
            try:
                cells = next(self._csv)
            except StopIteration:
                return
            except csv.Error as error:
                last = self._line + self._csv.line_num
                if self._ended or (last > start and len("".join(self._text)) > FIELD_CHARACTERS):
                    self.unread = self._after_quote(start)
                    return
                text = "".join(self._text).rstrip("\r\n")[:FIELD_CHARACTERS]
                yield Record(start, [text], _unreadable(error, start, last))
            else:
                if cells and (cells[0].strip(fields.ENDS) or not _is_blank(cells)):
                    yield Record(start, cells)

    def _after_quote(self, start: int) -> Unread:
        """Return the lines from the unclosed quote on, in a record that starts at line `start`."""
        text = "".join(self._text)
        opened = [match.start() for match in QUOTED.finditer(text) if not match[1]]
        line = start + _line_ends(text[: opened[-1]] if opened else "")
        last = self._line + self._csv.line_num + sum(1 for _ in self._file)
        return Unread(line, last - line + 1)

    def _is_header(self, cells: list[str]) -> bool:
        """Return whether a row repeats the header, or the line above, as where files were put together."""
        if cells[0].strip(fields.ENDS).lower() == "sep=":
            return _is_blank(cells[1:])
        if cells[0].strip(fields.ENDS) != self._names[0]:
            return False
        return [cell.strip(fields.ENDS) for cell in _without_blank_end(cells)] == self._names

    def _checked(self, record: Record) -> Record:
        """Pad a short row, and cut empty cells beyond the last column. A value needs a column with a name."""
        width = len(self.header)
        if record.fault:
            return record
        if len(record.cells) != width:
            if not _is_blank(record.cells[width:]):
                return record._replace(fault=f"{len(_without_blank_end(record.cells))} columns instead of {width}")
            record = record._replace(cells=record.cells[:width] + [""] * (width - len(record.cells)))
        for index in self._unnamed:
            if not _is_blank([record.cells[index]]):
                return record._replace(fault=f"column {index + 1} has a value, but no name in the first line")
        return record


def _joined(records: Iterator[Record], key: Key, width: int) -> Iterator[Record]:
    """Join rows that continue the record above; see `Reader.records`. A faulty row makes the whole record faulty."""
    current: Record | None = None
    continued: list[list[str]] = []
    for record in records:
        has_cells = len(record.cells) >= width  # text that is not CSV is a single cell
        above = key(current.cells) if current and has_cells and len(current.cells) >= width else ""
        if current and above and key(record.cells) in ("", above):
            continued.append(record.cells)
            if record.fault and not current.fault:
                current = current._replace(fault=f"line {record.line} of the same record: {record.fault}")
            continue
        if current:
            yield current._replace(continued=continued)
        current, continued = record, []
    if current:
        yield current._replace(continued=continued)


def _is_blank(cells: Sequence[str]) -> bool:
    """Return whether all cells have only white space and invisible characters."""
    return not any(cell.strip(fields.ENDS) for cell in cells)


def _without_blank_end(cells: list[str]) -> list[str]:
    width = len(cells)
    while width > 1 and _is_blank(cells[width - 1 : width]):
        width -= 1
    return cells[:width]


def _likely_delimiter(line: str) -> str:
    """Return the most frequent delimiter in the header, outside quotes; the comma if there is none."""
    plain = QUOTED.sub("", line)
    return max(DELIMITERS, key=plain.count)


def _line_ends(text: str) -> int:
    return len(re.findall(r"\r\n|\r|\n", text))


def _unreadable(error: csv.Error, first: int, last: int) -> str:
    lines = f"lines {first} to {last} are " if last > first else ""
    hint = "; is a quote not closed?" if last > first else ""
    return f"{lines}not readable as CSV ({error}){hint}"
