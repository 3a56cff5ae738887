"""Encoding and decoding of cursors."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cursors import IDLE_SECONDS, CursorError, decode, encode

list_ids = st.binary(max_size=64)
values = st.lists(
    st.one_of(st.none(), st.text(max_size=50), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)), max_size=4
)


@given(list_ids, values, st.integers(0, 2**33), st.integers(0, IDLE_SECONDS))
def test_cursor_decodes_to_its_values(
    list_id: bytes, position: list[str | int | float | None], now: int, idle: int
) -> None:
    assert decode(list_id, encode(list_id, position, now), now + idle) == position


@given(list_ids, values)
def test_cursor_needs_no_escaping_in_a_url(list_id: bytes, position: list[str | int | float | None]) -> None:
    assert set(encode(list_id, position)) <= set(string.ascii_letters + string.digits + "-_")


@given(list_ids, list_ids, values)
def test_cursor_of_another_list_is_refused(one: bytes, other: bytes, position: list[str | int | float | None]) -> None:
    if one != other:
        with pytest.raises(CursorError):
            decode(other, encode(one, position))


@given(list_ids, values, st.data())
def test_cursor_damaged_anywhere_is_refused(
    list_id: bytes, position: list[str | int | float | None], data: st.DataObject
) -> None:
    cursor = encode(list_id, position)
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from(sorted(set(string.printable) - {cursor[at]})))
    with pytest.raises(CursorError):
        decode(list_id, cursor[:at] + other + cursor[at + 1 :])


@given(st.text(max_size=200))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(CursorError):
        decode(b"", text)


def test_cursor_expires_after_a_day() -> None:
    cursor = encode(b"", ["a"], now=1000)
    assert decode(b"", cursor, now=1000 + IDLE_SECONDS) == ["a"]
    with pytest.raises(CursorError, match="expired"):
        decode(b"", cursor, now=1001 + IDLE_SECONDS)
