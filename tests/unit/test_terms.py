"""Terms of the index, which conditions are compared with."""

import sys
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.index.terms import CODE_LENGTH, MAX_VALUE_LENGTH, fold, number_term, path_code, terms, text_term
from tests.filter_reference import caseless

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
    """The maximum length of a value and the overlap of pieces depend on this factor."""
    assert max(len(fold(character * 4)) for character in CHARACTERS) == 3 * 4


@given(st.text(min_size=1, max_size=MAX_VALUE_LENGTH), st.integers(0, 12_000), st.sampled_from(["x", "ﬃ", "é", "💥"]))
@settings(max_examples=300, deadline=None)
def test_substring_of_a_long_text_is_in_one_of_its_pieces(needle: str, before: int, filler: str) -> None:
    text = filler * before + needle + filler * 12_000
    pieces = terms({"a": text}, None).contents
    inside = fold(needle) in fold(text)
    assert any(fold(needle) in piece.removeprefix(path_code("a")) for piece in pieces) == inside


@pytest.mark.parametrize("length", [0, 1, 764, 765, 766, 4095, 4096, 4097, 7427, 7428, 100_000])
def test_pieces_of_a_text_cover_it(length: int) -> None:
    text = "".join(chr(0x4E00 + index % 20_000) for index in range(length))
    whole = ""
    for piece in (piece.removeprefix(path_code("a")) for piece in terms({"a": text}, None).contents):
        overlap = next((size for size in range(min(len(piece), len(whole)), 0, -1) if whole.endswith(piece[:size])), 0)
        whole += piece[overlap:]
    assert whole == text


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


@given(st.dictionaries(st.text(max_size=10), values, max_size=6) | st.sampled_from(LONG))
@settings(max_examples=200, deadline=None)
def test_no_metadata_makes_a_term_too_long_for_the_index(metadata: dict[str, object]) -> None:
    terms_ = terms({}, msgspec.json.encode(metadata).decode())
    every = [*terms_.texts, *terms_.numbers, *terms_.contents]
    assert max((len(one.encode()) for one in every), default=0) <= LUCENE_BYTES


@pytest.mark.parametrize("number", ["9" * 1000, "1e131071", "1e-16383", "-" + "9" * 400 + "." + "9" * 400, "-1e-16383"])
def test_no_number_makes_a_term_too_long_for_the_index(number: str) -> None:
    [term] = terms({}, f'{{"a":{number}}}').numbers
    assert term == number_term("metadata.a", Decimal(number))
    assert len(term) < 2000


def test_path_has_a_term_if_it_exists() -> None:
    terms_ = terms({"email": None, "phone": "1"}, '{"a":null,"b":{},"c":[],"d":[null],"e":{"f":[{"g":1},{"g":"X"}]}}')
    there = {"phone", "metadata.b", "metadata.c", "metadata.d", "metadata.e", "metadata.e.f", "metadata.e.f.g"}
    assert {one for one in terms_.texts if "\0" not in one} == there
    assert text_term("metadata.e.f.g", "x") in terms_.texts
    assert terms_.numbers == [number_term("metadata.e.f.g", Decimal(1))]
