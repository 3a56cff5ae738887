"""Import files of every shape: encodings, delimiters, blank and short rows, unclosed quotes, pipes."""

import io
import os
from pathlib import Path

import pytest

from infra.imports import sources
from infra.imports.rows import FIELD_CHARACTERS, Key, Reader, Record
from infra.imports.sources import ImportFailed

ROWS = [["1", "José", "a@shop.example"], ["2", "Émile", ""]]
TABLE = "externalId,fullName,email\n1,José,a@shop.example\n2,Émile,\n"


def reader(text: str, delimiter: str | None = None) -> Reader:
    return Reader(io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8", newline=""), delimiter)


def records(text: str, continued_by: int | None = None) -> list[Record]:
    key = None if continued_by is None else cell(continued_by)
    return [record for chunk in reader(text).chunks(continued_by=key) for record in chunk.records]


def cell(position: int) -> Key:
    """Return a function that returns the cell of a row."""
    return lambda cells: cells[position].strip()


def read(path: Path, encoding: str | None = None) -> list[list[str]]:
    with sources.opened(path, encoding) as source, source.text() as text:
        return [record.cells for chunk in Reader(text).chunks() for record in chunk.records]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(TABLE, id="commas"),
        pytest.param(TABLE.replace(",", ";"), id="semicolons"),
        pytest.param(TABLE.replace(",", "\t"), id="tabs"),
        pytest.param(TABLE.replace(",", "|"), id="pipes"),
        pytest.param("sep=,\n" + TABLE, id="sep=,"),
        pytest.param('"sep=;"\r\n' + TABLE.replace(",", ";"), id="quoted sep=;"),
        pytest.param("SEP=^\n" + TABLE.replace(",", "^"), id="sep of another character"),
        pytest.param("\n,,\n  \n" + TABLE.replace("\n", "\n\n,,,\n \n"), id="blank rows"),
        pytest.param(TABLE.replace("\n", '\n  ,,\n\u00a0, \u200b,\ufeff\n" ",\t,\n'), id="rows of white space"),
        pytest.param("\u00a0,\u200b\n" + TABLE, id="white space above the header"),
        pytest.param(TABLE.replace("\n", ",,\n"), id="empty columns"),
        pytest.param(TABLE.replace("\n", ",\u00a0,\u200b \n"), id="columns of white space"),
        pytest.param(TABLE.replace(",\n", "\n"), id="short row"),
        pytest.param(TABLE + "sep=,\nexternalId,fullName,email\n", id="repeated header"),
        pytest.param(TABLE.replace("2,", "\ufeffexternalId, fullName ,email,\n2,"), id="files put together"),
        pytest.param(TABLE + '\ufeff"externalId","fullName","email"\n', id="files with marks put together"),
        pytest.param(TABLE.replace(",José,", ', "José", '), id="quotes after spaces"),
    ],
)
def test_rows_are_the_same_in_every_form(text: str) -> None:
    file = reader(text)
    assert file.header == ["externalId", "fullName", "email"]
    assert [record.cells for chunk in file.chunks() for record in chunk.records] == ROWS


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [("email", ","), ('"Name; first; last",email', ","), ("Note, long;email;x", ";")],
)
def test_delimiter_is_the_most_frequent_outside_quotes(header: str, delimiter: str) -> None:
    assert reader(header + "\n").delimiter == delimiter


def test_named_delimiter_counts() -> None:
    assert reader("a;b,c\n", ",").header == ["a;b", "c"]
    assert reader("sep=;\na;b,c\n", ",").header == ["a;b", "c"]


def test_lines_are_numbered_as_an_editor_does() -> None:
    text = 'sep=;\n\na;b\n\n1;"x\ny"\n2;x;y\n'
    assert [(record.line, bool(record.fault)) for record in records(text)] == [(5, False), (7, True)]


def test_cells_beyond_the_columns_are_a_fault() -> None:
    [record] = records("a,b\n1,2,,3,\n")
    assert record.fault == "4 columns instead of 2"


def test_value_needs_a_column_with_a_name() -> None:
    faults = [record.fault for record in records("a,,b\n1,,2\n1,x,2\n")]
    assert faults == ["", "column 2 has a value, but no name in the first line"]


@pytest.mark.parametrize(
    ("text", "line", "lines", "read_lines"),
    [
        ('a,b\n1,2\n2,"x\n3,4\n', 3, 2, [2]),
        ('a,b\n1,2\n2,"x', 3, 1, [2]),
        ('a,b\r1,2\r2,"x\r3,4\r', 3, 2, [2]),
        ('a,b\n1,"x ""y"" \nz","v\n2,3\n', 3, 2, []),
        ('a,b\n1,2"\n2,5" wide\n3,"x\n', 4, 1, [2, 3]),
        ('a,b\n1,"x\n' + "2,3\n" * (FIELD_CHARACTERS // 2), 2, FIELD_CHARACTERS // 2 + 1, []),
    ],
)
def test_reading_stops_at_a_quote_that_never_closes(text: str, line: int, lines: int, read_lines: list[int]) -> None:
    file = reader(text)
    assert [record.line for chunk in file.chunks() for record in chunk.records] == read_lines
    assert file.unread == (line, lines)


def test_rows_with_an_equal_or_empty_key_continue_the_row_above() -> None:
    text = "id,item\n1,a\n1 ,b\n,c\n2,d\n1,e\n"
    joined = [(record.line, len(record.continued)) for record in records(text, continued_by=0)]
    assert joined == [(2, 2), (5, 0), (6, 0)]
    assert [len(chunk.records) for chunk in reader(text).chunks(1, continued_by=cell(0))] == [1, 1, 1]


def test_rows_without_a_key_are_no_record_together() -> None:
    joined = [(record.line, len(record.continued)) for record in records("id,item\n,a\n,b\n1,c\n,d\n", continued_by=0)]
    assert joined == [(2, 0), (3, 0), (4, 1)]


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16", "utf-16-le"),
        ("windows-1252", "windows-1252"),
        ("windows-1252", "cp1252"),
        ("iso-8859-1", "latin1"),
    ],
)
def test_file_is_read_in_the_named_encoding(tmp_path: Path, encoding: str, named: str | None) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(TABLE.encode(encoding))
    assert read(path, named) == ROWS


@pytest.mark.parametrize(
    ("content", "named", "message"),
    [
        (b"PK\x03\x04" + bytes(26), None, "The file is a workbook or an archive, not CSV"),
        (b"PK\x03\x04" + bytes(26), "windows-1252", "The file is a workbook or an archive, not CSV"),
        (b"\x1f\x8b\x08", None, "The file is compressed, not CSV"),
        (TABLE.encode("utf-16"), None, "The file is UTF-16: import it with --encoding utf-16"),
        (TABLE.encode("utf-16-le"), None, "probably UTF-16: import it with --encoding utf-16-le"),
        (TABLE.encode("utf-16-be"), None, "probably UTF-16: import it with --encoding utf-16-be"),
        (TABLE.encode("windows-1252"), None, "Line 2 is not UTF-8: probably windows-1252, where byte E9 is 'é'"),
        (b"a\n\n\x81\n", None, "Line 3 is not UTF-8: name its encoding by --encoding"),
        (TABLE.encode(), "windows-1252", "The file is UTF-8: leave out --encoding windows-1252"),
        (TABLE.encode(), "ascii", "Line 2 is not ascii"),
        (b"a\n", "klingon", "--encoding klingon is unknown"),
        (b"a\n", "base64", "--encoding base64 is unknown"),
    ],
)
def test_wrong_encoding_is_refused_with_the_likely_one(
    tmp_path: Path, content: bytes, named: str | None, message: str
) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    with pytest.raises(ImportFailed) as failure:
        read(path, named)
    assert message in str(failure.value)


def test_ascii_file_is_read_in_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(b"a\n1\n")
    assert read(path, "windows-1252") == [["1"]]


def test_pipe_is_read_from_its_start_several_times() -> None:
    output, into = os.pipe()
    with os.fdopen(into, "wb") as pipe:
        pipe.write(TABLE.encode())
    path = Path(f"/dev/fd/{output}")
    try:
        with sources.opened(path) as source:
            for _ in range(2):
                with source.text() as text:
                    assert text.read() == TABLE
            assert source.size == len(TABLE.encode())
        assert sources.errors_path(path, "orders") == Path("piped-orders.errors.csv")
    finally:
        os.close(output)


def test_errors_file_of_a_file_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / "file.csv").touch()
    assert sources.errors_path(tmp_path / "file.csv", "orders") == tmp_path / "file.errors.csv"
