"""Parts of exports without servers: columns, attributes, ranges, and the field dictionary."""

from typing import Any

import pytest

from api.auth import Requester
from api.exports.ranges import NotSatisfiable, requested
from api.exports.schemas import ExportCreate
from api.validation import Checker
from infra.accounts.organizations import OrganizationError
from infra.exports.analytics import script
from infra.exports.attributes import Attribute, parse
from infra.exports.tables import ALL, CONSUMERS, ORDERS, columns_of
from infra.settings import ROOT

SIZE = 1000


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, SIZE)),
        ("bytes=0-0", (0, 1)),
        ("BYTES=10-19", (10, 20)),
        (" bytes=10-5000 ", (10, SIZE)),
        ("bytes=-1", (SIZE - 1, SIZE)),
        ("bytes=-5000", (0, SIZE)),
        # A server may ignore these.
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,5-6", None),
        ("bytes=a-b", None),
        ("lines=0-1", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_range_of_a_download(header: str | None, expected: tuple[int, int] | None) -> None:
    assert requested(header, SIZE) == expected


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=1000-1001", "bytes=-0"])
def test_range_without_a_byte_of_the_file(header: str) -> None:
    with pytest.raises(NotSatisfiable):
        requested(header, SIZE)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"tables": ["members", "AAA"]}, "tables[1]", "Must be audiences, consumers, members or orders"),
        ({"tables": []}, "tables", "Must have at least 1 items"),
        ({"tables": ["orders", "orders"]}, "tables", "Must name each table once"),
        ({"format": "xlsx"}, "format", "Must be csv or parquet"),
        ({"personal": "yes"}, "personal", "Must be true or false, not text"),
    ],
)
def test_faults_of_a_request_are_named(body: dict[str, Any], field: str, message: str) -> None:
    checker = Checker(Requester(key_id="key_1"))
    checker.check_object(body, ExportCreate)
    assert [(fault.field, fault.message) for fault in checker.faults.listed] == [(field, message)]


def test_attributes_are_parsed_with_their_columns() -> None:
    assert parse(["metadata.country:text", "metadata.a-b.c:number", "metadata.x:y:boolean"]) == [
        Attribute("country", "text"),
        Attribute("a-b.c", "number"),
        Attribute("x:y", "boolean"),
    ]
    assert [each.column for each in parse(["metadata.a-b.c:number"])] == ["attr_a_b_c"]


@pytest.mark.parametrize(
    "texts",
    [
        ["country:text"],
        ["metadata.country"],
        ["metadata.country:date"],
        ["metadata.:text"],
        ["metadata.a..b:text"],
        ["metadata.a\n:text"],
        ["metadata." + "x" * 65 + ":text"],
        ["metadata.a.b.c.d.e.f:text"],
        ["metadata.a:text", "metadata.a:number"],
        ["metadata.A-b:text", "metadata.a_B:text"],
        [f"metadata.k{number}:text" for number in range(51)],
    ],
    ids=lambda texts: texts[0][:20],
)
def test_faulty_attributes_are_refused(texts: list[str]) -> None:
    with pytest.raises(OrganizationError):
        parse(texts)


def test_columns_that_identify_a_person_need_to_be_asked_for() -> None:
    masked = {column.name for column in columns_of(CONSUMERS, parse(["metadata.tier:text"]), personal=False)}
    whole = {column.name for column in columns_of(CONSUMERS, [], personal=True)}
    assert whole - masked == {"email", "phone", "full_name", "external_id", "metadata"}
    assert masked - whole == {"attr_tier"}
    assert {"external_id", "metadata"} == {column.name for column in ORDERS.columns if column.is_personal}


def test_page_for_analysts_has_the_field_dictionary_of_the_code() -> None:
    section = (ROOT / "docs/analysts.md").read_text("utf-8").partition("\n## Fields\n")[2]
    for table in ALL.values():
        assert f"\n### {table.name}\n\n{table.text}\n" in section
        for column in table.columns:
            personal = " (personal)" if column.is_personal else ""
            assert f"| `{column.name}`{personal} | {column.type} | {column.text} |\n" in section
    rows = sum(line.startswith("| `") for line in section.splitlines())
    assert rows == sum(len(table.columns) for table in ALL.values())


def test_script_quotes_names_and_texts() -> None:
    columns = columns_of(CONSUMERS, [Attribute("o'brien", "text")], personal=False)
    text = script("csv", {"consumers": columns}, "it's")
    assert "COMMENT ON COLUMN consumers.\"attr_o_brien\" IS 'metadata.o''brien, declared as text." in text
