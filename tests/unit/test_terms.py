"""Terms of the index, which conditions are compared with."""

import sys
from datetime import UTC, datetime
from decimal import Decimal
from unicodedata import normalize

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.index.analysis import TEXT_END
from infra.index.folding import LONGEST_CACHED, fold, plain
from infra.index.terms import (
    AFTER_NUMBERS,
    CODE_LENGTH,
    FOR_CONTAINS,
    MAX_CONTENTS_BYTES,
    date,
    date_term,
    exists_term,
    number_term,
    path_code,
    terms,
    text_term,
)
from infra.wire import time
from tests.filter_reference import caseless, unaccented

LUCENE_BYTES = 32_766
"""The maximum length of a term in Lucene."""
CHARACTERS = [chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point <= 0xDFFF]


def test_path_codes_have_one_length_and_are_distinct() -> None:
    codes = {path_code(f"metadata.{name}") for name in range(100_000)}
    assert len(codes) == 100_000
    assert {len(code) for code in codes} == {CODE_LENGTH}


numbers = st.builds(
    lambda sign, digits, exponent: Decimal((sign, tuple(map(int, str(digits))), exponent)),
    st.integers(0, 1),
    st.integers(0, 10**40) | st.integers(0, 20),
    st.integers(-400, 400) | st.integers(-3, 3),
)


@given(numbers, numbers)
@settings(max_examples=2000)
def test_terms_have_the_order_of_their_numbers(one: Decimal, other: Decimal) -> None:
    first, second = number_term("n", one), number_term("n", other)
    assert (first < second, first == second) == (one < other, one == other)


@given(st.lists(numbers, min_size=3, max_size=30))
def test_terms_have_the_same_order_in_utf8(some: list[Decimal]) -> None:
    written = sorted(number_term("n", one).encode() for one in some)
    assert written == [number_term("n", one).encode() for one in sorted(some)]
    assert all(b"n\0" < one < b"n\1" for one in written)


moments = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 29), timezones=st.just(UTC))  # noqa: DTZ001 (hypothesis adds the time zone)


@given(moments, moments, numbers)
def test_terms_of_dates_have_the_order_of_the_times_and_follow_numbers(
    one: datetime, other: datetime, number: Decimal
) -> None:
    first, second = (time(moment) for moment in (one, other))
    assert (date_term("n", one) < date_term("n", other)) == (first < second) == (one < other and first != second)
    assert number_term("n", number) < f"n{AFTER_NUMBERS}" < date_term("n", one) < "n\1"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1990-01-01", "1990-01-01T00:00:00.000Z"),
        ("1990-01-01T00:30:00+01:00", "1989-12-31T23:30:00.000Z"),
        ("1990-01-01 00:30:00.123456789Z", "1990-01-01T00:30:00.123Z"),
        ("1990-02-30", None),
        ("1990-01-01T00:00:00", None),
        ("1990", None),
        ("01/02/1990", None),
        ("1990-01-01 or later", None),
    ],
)
def test_dates_of_metadata_are_rfc_3339(text: str, moment: str | None) -> None:
    parsed = date(text)
    assert (parsed and time(parsed)) == moment
    assert terms({}, msgspec.json.encode({"a": text}).decode()).numbers == (
        [f"metadata.a{AFTER_NUMBERS}{moment}"] if moment else []
    )


@given(st.text(st.characters() | st.sampled_from(" \u0301\u0345\u1100\u1161\u00a0")))
@settings(max_examples=1000)
def test_words_are_folded_like_the_whole_text(text: str) -> None:
    assert fold(text) == normalize("NFC", normalize("NFD", text).casefold())
    long = text + " " * LONGEST_CACHED
    assert plain(long).removesuffix(" " * LONGEST_CACHED) == plain(text)


@given(st.text())
@settings(max_examples=1000)
def test_plain_text_is_idempotent(text: str) -> None:
    assert plain(plain(text)) == plain(text)


@given(st.text(st.characters(max_codepoint=0xFF) | st.sampled_from("ΐΣςÉ田中가ﬃ\u0301\u200bｱΆйӨ"), max_size=20))
def test_plain_text_has_no_accents_case_or_width(text: str) -> None:
    known = "".join(character for character in text if character not in "øØæÆðÐþÞ·«»")
    assert plain(known) == unaccented(known)
    assert plain(text) == plain(fold(text)) == plain(text.upper())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ødegård", "odegard"),
        ("Łukasz Đorđević", "lukasz dordevic"),
        ("ﬃ Straße", "ffi strasse"),
        ("ışık İI", "isik ii"),
    ],
)
def test_letters_with_strokes_have_plain_forms(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(("one", "other"), [("5", "5.0"), ("5", "5e0"), ("0", "-0"), ("0", "-0.0e7"), ("100", "1e2")])
def test_equal_numbers_have_one_term(one: str, other: str) -> None:
    assert number_term("n", Decimal(one)) == number_term("n", Decimal(other))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Straße", "STRASSE", True),
        ("σίσυφος", "ΣΊΣΥΦΟΣ", True),
        ("E\u0301", "é", True),
        ("o\u0323\u0302", "O\u0302\u0323", True),
        ("ﬃ", "FFI", True),
        ("é", "e", False),
        ("İ", "i", False),
        ("İ", "i\u0307", True),
        ("ı", "i", False),
        ("Ａ", "a", False),
    ],
)
def test_folding_removes_case_and_keeps_accents(one: str, other: str, same: bool) -> None:  # noqa: FBT001
    assert (fold(one) == fold(other)) == same


@given(st.text())
@settings(max_examples=1000)
def test_folding_is_the_caseless_form_and_idempotent(text: str) -> None:
    assert fold(text) == caseless(text)
    assert fold(fold(text)) == fold(text)


def test_folding_triples_the_length_at_most() -> None:
    """The maximum length of a value depends on this factor."""
    assert max(len(fold(character * 4)) for character in CHARACTERS) == 3 * 4


values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=20) | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
)
LONG = [
    {"💥" * 8000: "x"},
    {"a": "💥" * 8000},
    {"a": "ΐ" * 16_000},
    {"💥" * 331: {"💥": "ﬃ" * 5000}},
    {"💥" * 331: "ﬃ" * 255},
    {"k" * 100: {"k" * 100: {"k" * 100: {"k" * 100: {"k" * 100: "x"}}}}},
    {"": {"": {"": ""}}},
    {"a": [[[[[["x" * 30_000]]]]]]},
]


def contents(metadata: object) -> list[str]:
    return terms({}, msgspec.json.encode(metadata).decode()).contents


@given(st.dictionaries(st.text(max_size=10), values | st.text(max_size=2000), max_size=20) | st.sampled_from(LONG))
@settings(max_examples=200, deadline=None)
def test_contents_of_metadata_have_2_kib_at_most(metadata: dict[str, object]) -> None:
    assert sum(len(one.encode()) for one in contents(metadata)) <= MAX_CONTENTS_BYTES


def test_short_texts_of_metadata_are_searched_before_long_texts() -> None:
    long = "Straße " * 400
    texts = contents({"a": long, "b": "Gold", "c": [True, "x" * 300, "Gold", "Gold"]})
    short = [("b", "gold"), ("c", "true"), ("c", "gold"), ("c", "x" * 300)]
    assert texts[:-1] == [path_code(f"metadata.{key}") + text for key, text in short]
    assert (FOR_CONTAINS + path_code("metadata.a") + plain(long)).startswith(texts[-1])
    # The cut text fills the limit, up to a part of a character.
    assert sum(len((TEXT_END + one).encode()) for one in texts) > MAX_CONTENTS_BYTES - 4


def test_long_text_beside_2_kib_of_shorter_texts_is_not_searched() -> None:
    texts = {f"k{number}": "x" * 244 for number in range(8)}
    assert len(contents(texts)) == 8
    assert contents(texts | {"long": "y" * 245}) == contents(texts)


@given(st.dictionaries(st.text(max_size=10), values, max_size=6) | st.sampled_from(LONG))
@settings(max_examples=200, deadline=None)
def test_no_metadata_makes_a_term_too_long_for_the_index(metadata: dict[str, object]) -> None:
    terms_ = terms({}, msgspec.json.encode(metadata).decode())
    every = [*terms_.texts, *terms_.numbers, *terms_.contents, terms_.all_contents or ""]
    assert max((len(one.encode()) for one in every), default=0) <= LUCENE_BYTES


@pytest.mark.parametrize("number", ["9" * 1000, "1e131071", "1e-16383", "-" + "9" * 400 + "." + "9" * 400, "-1e-16383"])
def test_no_number_makes_a_term_too_long_for_the_index(number: str) -> None:
    [term] = terms({}, f'{{"a":{number}}}').numbers
    assert term == number_term("metadata.a", Decimal(number))
    assert len(term) < 2000


@pytest.mark.parametrize(
    ("text", "texts", "contents"),
    [
        ("Gold", [], ["gold"]),
        ("田中", [], ["田中"]),
        ("Zoë", ["zoë"], ["~zoe"]),
        ("a\ufdd0b", [], ["a\ufffeb"]),
        ("x" * 800, [], [f"~{'x' * 800}"]),
        ("", [], [""]),
    ],
)
def test_text_without_accents_is_in_the_document_once(text: str, texts: list[str], contents: list[str]) -> None:
    code = path_code("metadata.a")
    terms_ = terms({}, msgspec.json.encode({"a": text}).decode())
    assert terms_.texts == [code + one for one in texts]
    assert terms_.contents == [f"~{code}{one[1:]}" if one.startswith("~") else code + one for one in contents]


def test_text_left_out_or_cut_for_contains_still_counts_for_equality() -> None:
    metadata = {f"k{number}": f"{number}{'x' * 700}" for number in range(4)}
    terms_ = terms({}, msgspec.json.encode(metadata).decode())
    every = {text_term(f"metadata.{key}", text) for key, text in metadata.items()}
    assert set(terms_.texts) | {text for text in terms_.contents if not text.startswith(FOR_CONTAINS)} == every
    assert len(terms_.contents) == 3


def test_path_has_a_term_if_it_exists() -> None:
    terms_ = terms({"email": None, "phone": "1"}, '{"a":null,"b":{},"c":[],"d":[null],"e":{"f":[{"g":1},{"g":"X"}]}}')
    there = {"phone", "metadata.b", "metadata.c", "metadata.d", "metadata.e", "metadata.e.f", "metadata.e.f.g"}
    assert set(terms_.paths) == there
    assert {exists_term(path) for path in there} == set(terms_.all_texts.split(TEXT_END))
    assert text_term("metadata.e.f.g", "x") in terms_.contents
    assert terms_.numbers == [number_term("metadata.e.f.g", Decimal(1))]
