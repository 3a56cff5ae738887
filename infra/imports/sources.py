"""Open an import file, whether regular or a pipe, and check its encoding."""

import codecs
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, TextIO

SCAN_BYTES = 1024 * 1024
OTHER_FORMATS = {
    b"PK\x03\x04": "a workbook or an archive",
    b"\xd0\xcf\x11\xe0": "a workbook",
    b"\x1f\x8b": "compressed",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
}
"""By the first bytes of the file."""
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class ImportFailed(Exception):  # noqa: N818 (read as a sentence where it is raised)
    """The import cannot start or continue; the message is shown to the user of the command."""


class Source:
    """An open import file, its size in bytes, and its encoding."""

    def __init__(self, file: BinaryIO, encoding: str | None) -> None:
        self._file = file
        self.size = file.seek(0, io.SEEK_END)
        self.encoding = check_encoding(file, encoding)

    @contextmanager
    def text(self) -> Iterator[TextIO]:
        """Read the file from its start, with its line ends as they are."""
        self._file.seek(0)
        text = io.TextIOWrapper(self._file, encoding=self.encoding, newline="")
        try:
            yield text
        finally:
            text.detach()


@contextmanager
def opened(path: Path, encoding: str | None = None) -> Iterator[Source]:
    """Open a file. A pipe is copied to a temporary file first, because the file is read several times.

    Args:
        path: of a file or a pipe, such as `/dev/stdin`.
        encoding: name of the encoding; UTF-8 if None.

    Raises:
        ImportFailed: the file has another encoding; the message names the likely one.
    """
    with path.open("rb") as file:
        if path.is_file():
            yield Source(file, encoding)
            return
        with TemporaryFile() as copy:
            shutil.copyfileobj(file, copy, SCAN_BYTES)
            yield Source(copy, encoding)


def errors_path(path: Path, name: str) -> Path:
    """Return the path for rejected rows: beside a file; of a pipe in the working directory, with the kind of rows."""
    return path.with_suffix(".errors.csv") if path.is_file() else Path(f"piped-{name}.errors.csv")


def check_encoding(file: BinaryIO, encoding: str | None) -> str:
    """Read the whole file once, to find a wrong encoding before any row is stored. Return the name of the codec.

    Raises:
        ImportFailed: the file cannot be decoded; the message names the first faulty line.
    """
    _refuse_other_formats(file)
    if encoding is None:
        _refuse_utf16(file)
    codec = _codec(encoding or "utf-8")
    fault = _undecodable(file, codec)
    if fault:
        line, content = fault
        if encoding is not None:
            raise ImportFailed(f"Line {line} is not {encoding}: name the file's encoding by --encoding")
        raise ImportFailed(f"Line {line} is not UTF-8: {_likely(content)}, or save the file as UTF-8")
    if codec not in {"utf-8-sig", "utf-8", "ascii"} and _is_utf8(file):
        raise ImportFailed(
            f"The file is UTF-8: leave out --encoding {encoding}, because it would change every letter beyond ASCII"
        )
    return codec


def _codec(encoding: str) -> str:
    """Return the name of Python's codec.

    Raises:
        ImportFailed: the encoding is unknown.
    """
    try:
        "".encode(encoding)
        name = codecs.lookup(encoding).name
    except (LookupError, UnicodeError):
        raise ImportFailed(
            f"--encoding {encoding} is unknown: use utf-8, utf-16, windows-1252, or another name that Python knows"
        ) from None
    return "utf-8-sig" if name == "utf-8" else name


def _refuse_other_formats(file: BinaryIO) -> None:
    file.seek(0)
    start = file.read(max(map(len, OTHER_FORMATS)))
    for first, title in OTHER_FORMATS.items():
        if start.startswith(first):
            raise ImportFailed(f"The file is {title}, not CSV: save or extract it as CSV, and import that file")


def _refuse_utf16(file: BinaryIO) -> None:
    file.seek(0)
    start = file.read(256)
    if start.startswith(UTF16):
        raise ImportFailed("The file is UTF-16: import it with --encoding utf-16, or save the file as UTF-8")
    # ASCII text in UTF-16 has a zero in every second byte.
    for zeros, name in ((start[1::2], "utf-16-le"), (start[::2], "utf-16-be")):
        if len(zeros) > 1 and zeros.count(0) > len(zeros) / 2:
            raise ImportFailed(f"The file is probably UTF-16: import it with --encoding {name}, or save it as UTF-8")


def _undecodable(file: BinaryIO, codec: str) -> tuple[int, bytes] | None:
    """Return the number of the first undecodable line, and the bytes from there on."""
    file.seek(0)
    decoder = codecs.getincrementaldecoder(codec)()
    lines = 1
    while True:
        block = file.read(SCAN_BYTES)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(codec, "ignore")
            return lines + before.count("\n"), error.object[error.start :]
        if not block:
            return None
        lines += text.count("\n")


def _is_utf8(file: BinaryIO) -> bool:
    """Return whether the file is UTF-8 with characters beyond ASCII: by chance, no text in another encoding is."""
    file.seek(0)
    ascii_only = all(block.isascii() for block in iter(lambda: file.read(SCAN_BYTES), b""))
    return not ascii_only and _undecodable(file, "utf-8") is None


def _likely(content: bytes) -> str:
    try:
        character = content[:1].decode("windows-1252")
        content.decode("windows-1252")
    except UnicodeDecodeError:
        return "name its encoding by --encoding"
    return (
        f"probably windows-1252, where byte {content[0]:02X} is {character!r}: import it with --encoding windows-1252"
    )
