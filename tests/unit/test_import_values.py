"""Texts of import files become values: typed metadata, times, amounts."""

import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from infra import fields
from infra.imports import amounts, ids, rules, values

INTEGERS = st.integers(-(10**15) + 1, 10**15 - 1)
JSON = st.one_of(st.none(), st.booleans(), INTEGERS, INTEGERS.map(lambda number: number / 1024))


@given(JSON)
def test_value_that_json_writes_is_read_again(value: Any) -> None:
    assume(sum(map(str.isdigit, str(value))) < 16)
    assert values.automatic(msgspec.json.encode(value).decode()) == value


@pytest.mark.parametrize(
    "text",
    [
        *("0123", "007", "00", "+44", "1234567890123456", "0.1234567890123456", "1e400", "1e-400", "1.", ".5", "1,5"),
        *(
            "NaN",
            "Infinity",
            "True",
            "TRUE",
            "None",
            "NULL",
            "nil",
            "1_000",
            "１２",
            "0x1f",
            '"a"',
            "[1]",
            "a b",
            "1 2",
        ),
    ],
)
def test_other_texts_stay_texts(text: str) -> None:
    assert values.automatic(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("100", 100), (" 100 ", 100), ("-0.5", -0.5), ("1e3", 1000), ("0", 0), ("true", True), ("null", None)],
)
def test_text_is_read_as_json(text: str, value: Any) -> None:
    assert values.automatic(text) == value
    assert type(values.automatic(text)) is not str


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("text", "100", b'"100"'),
        ("text", " a ", b'" a "'),
        ("number", "007", b"7"),
        ("number", " 12345678901234567890.50 ", b"12345678901234567890.50"),
        ("number", "1e3", b"1000"),
        ("boolean", "YES", b"true"),
        ("boolean", "0", b"false"),
        ("boolean", "t", b"true"),
        ("boolean", "N", b"false"),
        ("list", " vip, ,wholesale ", b'["vip","wholesale"]'),
    ],
)
def test_type_of_the_column_decides(kind: str, text: str, value: bytes) -> None:
    assert msgspec.json.encode(values.TYPES[kind](text)) == value


@pytest.mark.parametrize(("kind", "text"), [("number", "x"), ("number", "1,5"), ("boolean", "maybe")])
def test_text_of_another_type_is_refused(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        values.TYPES[kind](text)


HALF_PAST_ONE = [
    *("2024-03-31T01:30:00+00:00", "2024-03-31 01:30:00 UTC", "2024-03-31T01:30Z", "2024-03-31 01:30:00Z"),
    *("2024-03-31T02:30:00+0100", "2024-03-31 02:30:00 +0100", "2024-03-31 02:30:00 +01", "2024-03-31 2:30 +01:00"),
    *(
        "2024-03-31 01:30:00 GMT",
        "2024-03-31 02:30:00 GMT+0100",
        "2024-03-31T02:30:00 UTC+01:00",
        "2024-03-31T02:30:00+01:00[Etc/GMT-1]",
        *("2024-03-31t01:30:00z", "2024-03-31 01:30:00+00", "2024-03-31T02:30:00+01:00[Europe/London]"),
        *("2024-03-31 02:30:00 UTC+1", "2024-03-31 01:30:00.000 utc"),
    ),
    *("2024-03-30T20:30:00.000-0500", "2024-03-31T01:30:00,000Z", "2024-03-31  01:30:00 -00:00"),
]


@pytest.mark.parametrize("text", HALF_PAST_ONE)
def test_time_with_any_unambiguous_offset_is_taken(text: str) -> None:
    assert values.moment(text).isoformat() == "2024-03-31T01:30:00+00:00"


@pytest.mark.parametrize("text", ["2024-03-31T01:30:00", "2024-03-31 01:30:00", "2024-03-31 01:30"])
def test_time_without_a_zone_needs_one(text: str) -> None:
    with pytest.raises(ValueError, match="has no time zone: add an offset such as"):
        values.moment(text)
    assert values.moment(text, "America/New_York").isoformat() == "2024-03-31T05:30:00+00:00"
    with pytest.raises(ValueError, match="does not exist in the time zone Europe/London"):
        values.moment(text, "Europe/London")


@pytest.mark.parametrize(
    "text",
    [
        *("31/03/2024", "03/31/2024", "2024-02-30", "2024-3-1", "1711846200", "45382", "2024-W13-7", "Sun Mar 31 2024"),
        *(
            "0000-00-00 00:00:00",
            "2024-03-31T02:30:00[Europe/Berlin]",
            "2024-03-31T24:00:00Z",
            "2024-03-31 01:30:00 BST",
            "2024-03-31 01:30:00 EST",
            "now",
            "",
        ),
        *("2024-03-31 01:30:00 +1", "2024-03-31 01:30:00 +01:0", "2024-03-31 01:30:00 +25:00", "20240331T013000Z"),
    ],
)
@pytest.mark.parametrize("zone", [None, "Europe/London"])
def test_other_times_are_refused(text: str, zone: str | None) -> None:
    with pytest.raises(ValueError, match="Must be a time"):
        values.moment(text, zone)


def test_date_is_midnight_in_the_zone() -> None:
    assert values.moment("2024-07-01").isoformat() == "2024-07-01T00:00:00+00:00"
    assert values.moment("2024-07-01", "Europe/Berlin").isoformat() == "2024-06-30T22:00:00+00:00"


@pytest.mark.parametrize(
    ("text", "zone", "written"),
    [
        ("2024-10-27 01:30:00", "Europe/London", ["2024-10-27T01:30:00+01:00", "2024-10-27T01:30:00+00:00"]),
        ("2024-11-03 01:00", "America/New_York", ["2024-11-03T01:00:00-04:00", "2024-11-03T01:00:00-05:00"]),
        ("2024-04-07 01:59", "Australia/Lord_Howe", ["2024-04-07T01:59:00+11:00", "2024-04-07T01:59:00+10:30"]),
    ],
)
def test_time_in_the_repeated_hour_needs_an_offset(text: str, zone: str, written: list[str]) -> None:
    reason = f"is two times in the time zone {zone}: write {' or '.join(written)}"
    with pytest.raises(ValueError, match=re.escape(reason)):
        values.moment(text, zone)
    assert len({values.moment(one, zone) for one in written}) == 2


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-10-27 00:59:59", "2024-10-26T23:59:59+00:00"),
        ("2024-10-27 02:00:00", "2024-10-27T02:00:00+00:00"),
        ("2024-10-27 01:30:00 +01:00", "2024-10-27T00:30:00+00:00"),
        ("2024-10-27 01:30:00 UTC", "2024-10-27T01:30:00+00:00"),
    ],
)
def test_time_beside_the_repeated_hour_is_taken(text: str, moment: str) -> None:
    assert values.moment(text, "Europe/London").isoformat() == moment


@pytest.mark.parametrize(
    ("date", "zone", "moment"),
    [
        pytest.param("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00+00:00", id="without a midnight"),
        pytest.param("2024-11-03", "America/Havana", "2024-11-03T04:00:00+00:00", id="with two midnights"),
        pytest.param("2024-10-27", "Europe/London", "2024-10-26T23:00:00+00:00", id="with a repeated hour"),
    ],
)
def test_date_is_the_first_moment_of_the_day(date: str, zone: str, moment: str) -> None:
    assert values.moment(date, zone).isoformat() == moment


def test_day_that_a_zone_left_out_is_refused() -> None:
    with pytest.raises(ValueError, match="does not exist in the time zone Pacific/Apia"):
        values.moment("2011-12-30", "Pacific/Apia")


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        *(("149.99", "149.99"), ("1,234.56", "1234.56"), ("1,234,567", "1234567"), ("399,00", "399.00")),
        *(("1.234,56", "1234.56"), ("0,5", "0.5"), ("1.234.567", "1234567"), ("-5,00", "-5.00")),
        *(("0.500", "0.500"), ("0,500", "0.500"), ("1000.125", "1000.125"), ("1000,125", "1000.125")),
        *(("36.3900", "36.3900"), ("36,3900", "36.3900"), ("1,29,999.00", "129999.00")),
        *(("1 234,56", "1234.56"), ("1\u202f234\u00a0567", "1234567"), ("1'234.56", "1234.56"), ("1’234.5", "1234.5")),
        *((text, text) for text in ("1,2,3", "£5", "5 EUR", "", "1 2", "1.2.3", "1,23.456.7")),
    ],
)
def test_amount_gets_a_decimal_point(text: str, amount: str) -> None:
    assert amounts.money(text) == amount


@pytest.mark.parametrize(
    ("text", "with_point", "with_comma"),
    [("1.000", "1.000", "1000"), ("1,000", "1000", "1.000"), ("-12.345", "-12.345", "-12345")],
)
def test_ambiguous_amount_needs_the_decimal_separator(text: str, with_point: str, with_comma: str) -> None:
    with pytest.raises(ValueError, match="name the decimal separator of the file by --decimal point or"):
        amounts.money(text)
    assert amounts.decimal_separator(text) is None
    assert (amounts.money(text, "."), amounts.money(text, ",")) == (with_point, with_comma)


@pytest.mark.parametrize(
    ("text", "decimal"), [("12.50", ","), ("1,234.50", ","), ("1,234,567", ","), ("2,50", "."), ("1.234,5", ".")]
)
def test_amount_with_another_separator_than_the_file_is_refused(text: str, decimal: str) -> None:
    with pytest.raises(ValueError, match="has another decimal separator than the file"):
        amounts.money(text, decimal)


@pytest.mark.parametrize("text", ["2,50", "1,000", "1,234.50", "1 234.50", "1.234,50", "1'000"])
def test_amount_of_an_own_file_has_a_point_alone(text: str) -> None:
    with pytest.raises(ValueError, match="--decimal point or --decimal comma"):
        amounts.with_point(text)


@pytest.mark.parametrize("text", ["1.000", "5", "1e3", "-1", "x", "1,2,3", ""])
def test_other_text_of_an_own_file_is_unchanged(text: str) -> None:
    assert amounts.with_point(text) == text


@given(st.decimals(0, 10**9, places=2), st.sampled_from([".", ","]), st.booleans())
def test_amount_with_two_decimals_is_certain(amount: Decimal, decimal: str, is_grouped: bool) -> None:  # noqa: FBT001
    text = f"{amount:,.2f}" if is_grouped else f"{amount:.2f}"
    written = text.translate({ord(","): ".", ord("."): ","}) if decimal == "," else text
    assert amounts.decimal_separator(written) == decimal
    assert Decimal(amounts.money(written)) == amount


@pytest.mark.parametrize("text", ["4.47401E+11", "4,47401E+11", "4.47401e11", "1E+05", " 9.1E+15 ", "4.47401E-11"])
def test_id_in_scientific_notation_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is in scientific notation"):
        ids.exact_id(text)


@pytest.mark.parametrize("text", ["NULL", "null", "NaN", "nan", "None", "N/A", "undefined", " - ", "-"])
def test_word_for_a_missing_value_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="is a word for a missing value: leave the cell empty"):
        ids.exact_id(text)


@pytest.mark.parametrize("text", ["1E5", "5E12", "E+11", "447401000000", "1.5", "v1.2e", "SKU-1E+05"])
def test_other_ids_are_taken(text: str) -> None:
    assert ids.exact_id(text) == text


@pytest.mark.parametrize(("text", "whole"), [("12345.0", "12345"), ("12345,00", "12345"), ("7.0", "7"), ("12", "12")])
def test_decimal_id_of_a_column_of_numbers_is_the_whole_number(text: str, whole: str) -> None:
    assert ids.exact_id(text, is_decimal=True) == whole


@pytest.mark.parametrize("is_decimal", [True, False])
def test_decimal_id_that_has_lost_digits_is_refused(is_decimal: bool) -> None:  # noqa: FBT001
    with pytest.raises(ValueError, match="is a decimal number, as spreadsheets write ids"):
        ids.exact_id("12345678901234568.0", is_decimal=is_decimal)


@pytest.mark.parametrize("text", ["12345,0", "2.0"])
def test_decimal_id_among_other_ids_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is a decimal number, as spreadsheets write ids"):
        ids.exact_id(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "must be a JSON array"),
        ('{"productId": "a", "quantity": 1}', "must be a JSON array"),
        ('[{"productId": "a"}]', "must be a JSON array"),
        ('[{"productId": "a", "quantity": 1, "size": 1}]', "must be a JSON array"),
        ('[{"productId": " ", "quantity": 1}]', "productId must be 1 to 255 characters"),
        ('[{"productId": "a", "quantity": -1}]', "quantity must be"),
        ('[{"productId": "a", "quantity": 1, "unitAmount": "x"}]', "Must be a decimal number"),
        ("[" + ",".join(['{"productId": "a", "quantity": 1}'] * 201) + "]", "must be at most 200"),
    ],
)
def test_invalid_items_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        values.items(text)


def test_items_are_stored_as_the_api_stores_them() -> None:
    assert msgspec.json.decode(values.items('[{"productId": "a", "quantity": "2", "unitAmount": 1.50}]')) == [
        {"productId": "a", "variantId": None, "quantity": 2, "unitAmount": "1.5"}
    ]


@given(st.from_regex(ids.ORDINARY_ID, fullmatch=True).filter(lambda text: len(text) <= 255))
def test_ordinary_id_breaks_no_rule(text: str) -> None:
    assert text.lower() not in ids.MISSING_IDS
    ids.refuse_scientific(text)
    assert ids.whole_id(text) == text == ids.exact_id(text)


@given(st.from_regex(rules.ORDINARY_AMOUNT, fullmatch=True))
def test_ordinary_amount_is_stored_as_written(text: str) -> None:
    ids.refuse_scientific(text)
    assert f"{fields.amount(amounts.with_point(text)):f}" == text == amounts.money(text, ".")


@given(st.integers(-(10**10), 10**11), st.integers(-14 * 60, 14 * 60), st.sampled_from(["T", " "]))
def test_time_is_the_same_in_another_notation_of_its_offset(seconds: int, minutes: int, separator: str) -> None:
    moment = datetime(1970, 1, 1, tzinfo=timezone(timedelta(minutes=minutes))) + timedelta(seconds=seconds)
    text = moment.isoformat(separator, "milliseconds")
    other = f"{text[:-6].replace('.', ',')} GMT{text[-6:].replace(':', '')}"
    assert values.moment(text) == values.moment(other) == values.moment(text, "Europe/London")
