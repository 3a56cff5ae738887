"""File formats, and errors of files and rows."""

import pytest

from infra.imports.rows import FIELD_CHARACTERS
from infra.imports.run import Counts
from infra.imports.sources import ImportFailed
from infra.phone_numbers import INVALID
from tests.imports.import_environment import ImportEnvironment

ROWS = 'externalId,fullName\n1,"José\nÅngström"\n2,Émile\n'


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("externalId,fullName\n1,José\n2,Émile", id="no newline at the end"),
        pytest.param("externalId,fullName\r\n1,José\r\n2,Émile\r\n", id="CRLF"),
        pytest.param("externalId,fullName\r1,José\r2,Émile\r", id="CR"),
        pytest.param("\ufeffexternalId,fullName\n1,José\n2,Émile\n", id="BOM"),
        pytest.param('\ufeff"externalId", fullName \r\n"1","José"\r\n\r\n2,Émile\r\n\r\n', id="quotes, blank lines"),
    ],
)
def test_rows_are_read_from_every_supported_file_format(shop: ImportEnvironment, content: str) -> None:
    assert shop.consumers(content) == Counts(read=2, inserted=2)
    assert shop.stored("external_id, full_name") == [("1", "José"), ("2", "Émile")]
    assert not shop.errors_path.exists()


def test_errors_name_the_first_line_of_a_record(shop: ImportEnvironment) -> None:
    counts = shop.consumers(
        "externalId,metadata.note,email\r\n"
        '1,"two\r\nlines",a@shop.example\r\n'
        '2,"three\r\n\r\nlines",wrong\r\n'
        "3,,wrong as well\r\n"
        "5,x,e@shop.example,more\r\n"
        "6,,f@shop.example\r\n"
    )
    assert (counts.read, counts.inserted, counts.rejected) == (5, 2, 3)
    assert shop.errors() == [
        ["4", "email: Invalid email format"],
        ["7", "email: Invalid email format"],
        ["8", "4 columns instead of 3"],
    ]


def test_errors_file_has_every_fault_and_the_original_columns(shop: ImportEnvironment) -> None:
    shop.consumers('email,Note,phone,fullName\nno@,"a, ""b""",1,\x07\n', mapping={"Note": "metadata.note"})
    assert shop.errors_path.read_text() == (
        "errorLine,errorReasons,email,Note,phone,fullName\n"
        f'2,"email: Invalid email format; phone: {INVALID}; '
        'fullName: Name must not contain control characters",no@,"a, ""b""",1,\x07\n'
    )


def test_corrected_errors_file_can_be_imported(shop: ImportEnvironment) -> None:
    shop.consumers("externalId,email\n1,wrong\n2,b@shop.example\n")
    assert shop.consumers(shop.errors_path.read_text().replace("wrong", "a@shop.example")).inserted == 1
    assert shop.stored("external_id, email") == [("2", "b@shop.example"), ("1", "a@shop.example")]


def test_errors_file_of_an_earlier_run_is_removed(shop: ImportEnvironment) -> None:
    assert shop.consumers("email\nwrong\n").errors_file == str(shop.errors_path)
    assert shop.consumers("email\nright@shop.example\n").errors_file is None
    assert not shop.errors_path.exists()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param("1,a\0b", "fullName: must not contain NUL", id="NUL"),
        pytest.param("1," + "x" * 300_000, "fullName: Name must be 1 to 255 characters", id="long field"),
        pytest.param(
            "1," + "x" * (FIELD_CHARACTERS + 1),
            f"not readable as CSV (field larger than field limit ({FIELD_CHARACTERS}))",
            id="huge field",
        ),
        pytest.param('1,"a"b', "not readable as CSV (',' expected after '\"')", id="text after a quote"),
    ],
)
def test_unreadable_row_is_rejected_and_others_are_imported(shop: ImportEnvironment, row: str, reason: str) -> None:
    counts = shop.consumers(f"externalId,fullName\n0,before\n{row}\n2,after\n")
    assert (counts.inserted, counts.rejected) == (2, 1)
    assert shop.errors() == [["3", reason]]


def test_import_stops_at_a_quote_that_never_closes(shop: ImportEnvironment) -> None:
    counts = shop.consumers('externalId,metadata.note\n1,a\n2,"b\n3,c\n4,d\n')
    assert (counts.read, counts.inserted, counts.rejected, counts.unread_lines) == (1, 1, 0, 3)
    assert counts.unread
    assert counts.unread.startswith("Line 3: a quote opens and never closes")
    assert shop.stored("external_id") == [("1",)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The file is empty"),
        (b"\xef\xbb\xbf\r\n\r\n", "The file is empty"),
        (b"email\na@shop.example\nb\xe9@shop.example\n", "Line 3 is not UTF-8: probably windows-1252"),
        ("email\na@shop.example\n".encode("utf-16"), "The file is UTF-16: import it with --encoding utf-16"),
        (b"email\na@shop.example\n\xe2\x82", "Line 3 is not UTF-8"),
        (b"email,mail,id\n", "'mail' is unknown; 'id' is unknown. Known are email, phone, fullName, externalId"),
        (b"email,email\n", "duplicate column 'email'"),
        (b"metadata.a,metadata.a,email\n", "duplicate column 'metadata.a'"),
        (b"email,metadata.\n", "'metadata.' is unknown"),
        (b"fullName,phone\n", "The file needs a column externalId or email"),
        (b'"email\n', "not readable as CSV"),
    ],
)
def test_invalid_file_is_refused_with_its_reason(shop: ImportEnvironment, content: bytes, message: str) -> None:
    with pytest.raises(ImportFailed) as failure:
        shop.consumers(content)
    assert message in str(failure.value)
    assert shop.stored("id") == []


def test_file_with_only_a_header_imports_nothing(shop: ImportEnvironment) -> None:
    assert shop.consumers("externalId,email\n") == Counts()


def test_columns_are_mapped_and_ignored_by_header(shop: ImportEnvironment) -> None:
    mapping = {"E-mail = address": "email", "Notes": "", "Land": "metadata.country"}
    shop.consumers("E-mail = address,Notes,Land\na@shop.example,x,NO\n", mapping=mapping)
    assert shop.stored("email, metadata") == [("a@shop.example", {"country": "NO"})]
    with pytest.raises(ImportFailed, match="--column names 'Notes', which is not a column of the file"):
        shop.consumers("email\n", mapping={"Notes": ""})


def test_import_ends_when_the_organization_is_deleted(shop: ImportEnvironment) -> None:
    def delete(_: Counts, __: int) -> None:
        shop.connection.execute("UPDATE organizations SET deleted_at = now() WHERE name = %s", [shop.name])

    with pytest.raises(ImportFailed, match="The organization was deleted during the import"):
        shop.consumers("externalId\n1\n2\n3\n", chunk_rows=1, committed=delete)
    assert shop.stored("external_id") == [("1",)]
