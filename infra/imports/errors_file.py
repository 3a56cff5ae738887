"""Write rejected rows, with line number and reasons, to a file that can be corrected and imported."""

import csv
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.imports.columns import ERROR_COLUMNS
from infra.imports.rows import Record


class ErrorsFile:
    """Create the file at the first rejected row. A file of an earlier run is removed at the start.

    The file has the encoding and the delimiter of the imported file, for the same command to import both.
    """

    def __init__(self, path: Path, header: Sequence[str], *, delimiter: str = ",", encoding: str = "utf-8-sig") -> None:
        self.path = path
        self._delimiter = delimiter
        self._encoding = "utf-8" if encoding == "utf-8-sig" else encoding
        self._header = [name for name in header if name.strip() not in ERROR_COLUMNS]
        self._dropped = {index for index, name in enumerate(header) if name.strip() in ERROR_COLUMNS}
        self._stack = ExitStack()
        self._write = self._open

    def __enter__(self) -> Self:
        self.path.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, record: Record, reasons: str) -> None:
        self._write([str(record.line), reasons, *self._cells(record.cells)])
        for cells in record.continued:
            self._write([str(record.line), "", *self._cells(cells)])

    def _cells(self, cells: list[str]) -> list[str]:
        if len(cells) > 1:  # a single cell may be text that is not CSV
            return [cell for index, cell in enumerate(cells) if index not in self._dropped]
        return cells

    def _open(self, row: list[str]) -> None:
        # Line by line, so that the file is complete up to the moment an import is killed.
        descriptor = _open_private(self.path)
        file = self._stack.enter_context(
            os.fdopen(descriptor, "w", encoding=self._encoding, errors="backslashreplace", newline="", buffering=1)
        )
        writer = csv.writer(file, delimiter=self._delimiter)
        writer.writerow([*ERROR_COLUMNS, *self._header])
        writer.writerow(row)
        self._write = writer.writerow


def _open_private(path: Path) -> int:
    """Open a file for its owner alone, because rejected rows are personal data; the umask may permit more."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)  # the mode above counts for new files only
    return descriptor
