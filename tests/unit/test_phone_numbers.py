"""Phone numbers as people write them are stored in one form, and found in every form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import fields
from infra.index.documents import phone_digits
from infra.phone_numbers import equivalents, searched_digits

WRITTEN = [
    # Dashes, dots, spaces, digits and marks.
    ("020\u20117946\u20110111", "GB", "+442079460111"),
    ("020–7946—0111", "GB", "+442079460111"),
    ("020−7946－0111", "GB", "+442079460111"),
    ("090ー1234ー5678", "JP", "+819012345678"),
    ("020\u00a07946\u20090111", "GB", "+442079460111"),
    ("020·7946・0111", "GB", "+442079460111"),
    ("０２０　７９４６　０１１１", "GB", "+442079460111"),
    ("٠٢٠ ٧٩٤٦ ٠١١١", "GB", "+442079460111"),
    ("०२० ७९४६ ०१११", "GB", "+442079460111"),
    ("\u202a+44 20 7946 0111\u202c", None, "+442079460111"),
    ("＋44（0）20 7946 0111", None, "+442079460111"),
    ("\ufeff+44 20\u200b7946 0111\u200e", None, "+442079460111"),
    # Extensions.
    ("020 7946 0111 x12", "GB", "+442079460111 x12"),
    ("020 7946 0111 ext. 12", "GB", "+442079460111 x12"),
    ("020 7946 0111 EXT 12", "GB", "+442079460111 x12"),
    ("020 7946 0111 extension 12", "GB", "+442079460111 x12"),
    ("020 7946 0111;ext=12", "GB", "+442079460111 x12"),
    ("020 7946 0111#12", "GB", "+442079460111 x12"),
    ("020 7946 0111, ext: 12", "GB", "+442079460111 x12"),
    ("020 7946 0111 (ext 12)", "GB", "+442079460111 x12"),
    ("tel:+44-20-7946-0111;ext=12", None, "+442079460111 x12"),
    ("TEL: 020 7946 0111", "GB", "+442079460111"),
    ("٠٢٠ ٧٩٤٦ ٠١١١ x ١٢", "GB", "+442079460111 x12"),
    # Prefixes for calls abroad.
    ("0044 20 7946 0111", "GB", "+442079460111"),
    ("0044 20 7946 0111", "DE", "+442079460111"),
    ("00 44 (0)20 7946 0111", "FR", "+442079460111"),
    ("011 44 20 7946 0111", "US", "+442079460111"),
    ("0011 44 20 7946 0111", "AU", "+442079460111"),
    ("010 44 20 7946 0111", "JP", "+442079460111"),
    ("0044 20 7946 0111", None, "0044 20 7946 0111"),
    ("0044 20 7946 0111", "US", "0044 20 7946 0111"),
    # Numbers with two forms.
    ("+52 1 55 1234 5678", None, "+5215512345678"),
    ("044 55 1234 5678", "MX", "+525512345678"),
    ("011 15-2345-6789", "AR", "+5491123456789"),
    ("(11) 8765-4321", "BR", "+551187654321"),
    ("+229 97 12 34 56", None, "+22997123456"),
    # A slash after an area code.
    ("0171/1234567", "DE", "+491711234567"),
    ("0171 / 123 45 67", "DE", "+491711234567"),
    ("(039771)/123456", "DE", "+4939771123456"),
    ("030/123456-0", "DE", "+49301234560"),
    ("0171/123/4567", "DE", "+491711234567"),
    ("+49/171/1234567", None, "+491711234567"),
    ("0049 39771/123456", "GB", "+4939771123456"),
    ("+43 (0)5372/12345", None, "+43537212345"),
    ("020 7946 0111 x", "GB", "+442079460111"),
    # A slash or a mark elsewhere.
    ("030 1234567/68", "DE", "030 1234567/68"),
    ("1234567/68", "DE", "1234567/68"),
    ("+49 30 12345678/90", None, "+49 30 12345678/90"),
    ("030/123 45 67/89", "DE", "030/123 45 67/89"),
    ("x12 020 7946 0111", "DE", "x12 020 7946 0111"),
    # As sent.
    ("٠٢٠ ٧٩٤٦", None, "٠٢٠ ٧٩٤٦"),
    ("123", "GB", "123"),
    ("#100#", None, "#100#"),
]
ONE_LINE = [
    ("+52 55 1234 5678", "+52 1 55 1234 5678", None),
    ("55 1234 5678", "+5215512345678", "MX"),
    ("+54 11 2345 6789", "+54 9 11 2345 6789", None),
    ("011 15-2345-6789", "+54 11 2345-6789", "AR"),
    ("+55 11 8765-4321", "+55 11 98765-4321", None),
    ("(11) 8765-4321", "(11) 98765-4321", "BR"),
    ("+229 97 12 34 56", "+229 01 97 12 34 56", None),
    ("+57 1 234 5678", "+57 601 234 5678", None),
    ("0044 20 7946 0111", "+44 20 7946 0111", None),
    ("+44 20 7946 0111", "020\u20117946\u20110111", "GB"),
    ("020 7946 0111 x12", "+44 20 7946 0111;ext=12", "GB"),
    ("٠٢٠ ٧٩٤٦ ٠١١١", "020 7946 0111", None),
]


def is_found(stored: str, sought: str, region: str | None) -> bool:
    return bool(set(phone_digits(fields.phone(stored, region))) & set(searched_digits(sought, region)))


@pytest.mark.parametrize(("written", "region", "stored"), WRITTEN)
def test_number_is_stored_in_one_form(written: str, region: str | None, stored: str) -> None:
    assert fields.phone(written, region) == stored
    assert fields.phone(stored, region) == stored
    assert is_found(written, written, region)
    assert is_found(written, stored, region)


@pytest.mark.parametrize(("one", "other", "region"), ONE_LINE)
def test_forms_of_a_line_find_each_other(one: str, other: str, region: str | None) -> None:
    assert is_found(one, other, region)
    assert is_found(other, one, region)


@pytest.mark.parametrize(("one", "other", "region"), ONE_LINE[:8])
def test_filter_compares_forms_of_a_line(one: str, other: str, region: str | None) -> None:
    assert fields.phone(one, region) in equivalents(other, region)
    assert fields.phone(other, region) in equivalents(one, region)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("+52 55 1234 5678", "+52 55 1234 5679"),
        ("+55 11 3123-4567", "+55 11 93123-4567"),
        ("+44 20 7946 0111", "+44 20 7946 0111 x12"),
        ("+44 20 7946 0111 x12", "+44 20 7946 0111 x13"),
        ("+1 52 1551 2345", "+52 1 55 1234 5678"),
    ],
)
def test_different_lines_do_not_find_each_other(one: str, other: str) -> None:
    assert not is_found(one, other, None)


@pytest.mark.parametrize(
    "sought", ["+442079460111", "020 7946 0111", "2079460111", "020 7946 0111 x12", "+44 20 7946 0111#12"]
)
def test_number_with_an_extension_is_found_with_and_without(sought: str) -> None:
    assert is_found("020 7946 0111 ext. 12", sought, "GB")


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("447400000077.0", "decimal number"),
        ("+447400000077.0", "decimal number"),
        ("447400000077.00", "decimal number"),
        ("447400000077,0", "decimal number"),
        ("４４７４００００００７７．０", "decimal number"),
        ("4.474E+11", "scientific notation"),
        ("4,474e+11", "scientific notation"),
        ("4.474E11", "scientific notation"),
        ("call me", "at least 3 digits"),
        ("12", "at least 3 digits"),
        ("+44 20 7946 0111 [home]", "at least 3 digits"),
        ("1" * 41, "at least 3 digits"),
    ],
)
def test_refused_number_has_a_reason(written: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        fields.phone(written, "GB")
    assert searched_digits(written, "GB") == []


@pytest.mark.parametrize(
    "written",
    [
        "020 7946 0111 x12 x34",
        "020 7946 0111 x12#34",
        "020 7946 0111 x12/34",
        "020 7946 0111 x12 34",
        "020 7946 0111 ext. 12 ext. 13",
        "tel:+442079460111;ext=1;ext=2",
        "020 7946 0111 ｘ１２ ｘ３４",
    ],
)
@pytest.mark.parametrize("region", [None, "GB", "DE"])
def test_number_with_two_extensions_is_refused(written: str, region: str | None) -> None:
    with pytest.raises(ValueError, match="only one extension"):
        fields.phone(written, region)


@pytest.mark.parametrize(
    "written",
    [
        "0171/1234567 / 0171/7654321",
        "0171/1234567/0171/7654321",
        "123456/654321",
        "030 1234567/7654321",
        "+44 20 7946 0111 / +44 20 7946 0112",
        "+442079460111 +442079460112",
        "1234567 - 7654321",
        "12/05/2020",
        "5/12/2020",
        "12 / 05 / 2020",
        "12/05/20",
        "12.05.2020",
        "12-05-1980",
        "2020-05-12",
        "1980/12/5",
        "１２／０５／２０２０",
        "12/05/2563",
    ],
)
@pytest.mark.parametrize("region", [None, "GB", "DE"])
def test_date_or_two_numbers_are_stored_as_sent(written: str, region: str | None) -> None:
    assert fields.phone(written, region) == written


@pytest.mark.parametrize("written", ["020 7946 0111 x", "020 7946 0111#"])
def test_mark_without_an_extension_is_no_part_of_the_number(written: str) -> None:
    assert fields.phone(written, "GB") == "+442079460111"


@given(
    st.text("0123456789٠１ -‑–.()/+x#;ext=, \u200e\u00a0", max_size=42),
    st.sampled_from([None, "GB", "US", "MX", "AR", "BR"]),
)
def test_any_accepted_number_keeps_its_form_and_is_found(text: str, region: str | None) -> None:
    try:
        stored = fields.phone(text, region)
    except ValueError:
        return
    assert fields.phone(stored, region) == stored
    assert len(stored) <= 40
    assert is_found(text, text, region)
