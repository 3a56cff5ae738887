"""Cursors by themselves."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cursors import IDLE_SECONDS, CursorError, decode, encode

questions = st.binary(max_size=64)
values = st.lists(
    st.one_of(st.none(), st.text(max_size=50), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)), max_size=4
)


@given(questions, values, st.integers(0, 2**33), st.integers(0, IDLE_SECONDS))
def test_cursor_gives_back_the_values_it_was_made_of(
    question: bytes, place: list[str | int | float | None], now: int, idle: int
) -> None:
    assert decode(question, encode(question, place, now), now + idle) == place


@given(questions, values)
def test_cursor_is_text_that_needs_no_escape_in_an_address(
    question: bytes, place: list[str | int | float | None]
) -> None:
    assert set(encode(question, place)) <= set(string.ascii_letters + string.digits + "-_")


@given(questions, questions, values)
def test_cursor_of_another_question_is_refused(one: bytes, other: bytes, place: list[str | int | float | None]) -> None:
    if one != other:
        with pytest.raises(CursorError):
            decode(other, encode(one, place))


@given(questions, values, st.data())
def test_cursor_damaged_anywhere_is_refused(
    question: bytes, place: list[str | int | float | None], data: st.DataObject
) -> None:
    cursor = encode(question, place)
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from(sorted(set(string.printable) - {cursor[at]})))
    with pytest.raises(CursorError):
        decode(question, cursor[:at] + other + cursor[at + 1 :])


@given(st.text(max_size=200))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(CursorError):
        decode(b"", text)


def test_cursor_expires_a_day_after_it_was_given() -> None:
    cursor = encode(b"", ["a"], now=1000)
    assert decode(b"", cursor, now=1000 + IDLE_SECONDS) == ["a"]
    with pytest.raises(CursorError, match="expired"):
        decode(b"", cursor, now=1001 + IDLE_SECONDS)
