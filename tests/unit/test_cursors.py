"""Encoding and decoding of cursors."""

import string
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cursors import IDLE_SECONDS, CursorError, Cursors
from api.seals import Seal
from tests.seals import fixed_seal, upgraded_seal

list_ids = st.binary(max_size=64)
values = st.lists(
    st.one_of(st.none(), st.text(max_size=50), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)), max_size=4
)


@given(list_ids, values, st.integers(0, 2**33), st.integers(0, IDLE_SECONDS))
def test_cursor_decodes_to_its_values(
    list_id: bytes, position: list[str | int | float | None], now: int, idle: int
) -> None:
    cursors = Cursors(fixed_seal(), list_id)
    assert cursors.decode(cursors.encode(position, now), now + idle) == position


@given(list_ids, values)
def test_cursor_needs_no_escaping_in_a_url(list_id: bytes, position: list[str | int | float | None]) -> None:
    assert set(Cursors(fixed_seal(), list_id).encode(position)) <= set(string.ascii_letters + string.digits + "-_")


@given(list_ids, list_ids, values)
def test_cursor_of_another_list_is_refused(one: bytes, other: bytes, position: list[str | int | float | None]) -> None:
    if one != other:
        with pytest.raises(CursorError):
            Cursors(fixed_seal(), other).decode(Cursors(fixed_seal(), one).encode(position))


@given(list_ids, values)
def test_cursor_of_another_environment_is_refused(list_id: bytes, position: list[str | int | float | None]) -> None:
    with pytest.raises(CursorError):
        Cursors(fixed_seal(2), list_id).decode(Cursors(fixed_seal(1), list_id).encode(position))


@given(list_ids, values, st.data())
def test_cursor_damaged_anywhere_is_refused(
    list_id: bytes, position: list[str | int | float | None], data: st.DataObject
) -> None:
    cursor = Cursors(fixed_seal(), list_id).encode(position)
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from(sorted(set(string.printable) - {cursor[at]})))
    with pytest.raises(CursorError):
        Cursors(fixed_seal(), list_id).decode(cursor[:at] + other + cursor[at + 1 :])


@given(st.text(max_size=200))
@pytest.mark.parametrize("seal", [fixed_seal(), upgraded_seal()])
def test_any_other_text_is_refused(seal: Seal, text: str) -> None:
    with pytest.raises(CursorError):
        Cursors(seal, b"").decode(text)


def test_cursor_expires_after_a_day() -> None:
    cursors = Cursors(fixed_seal(), b"")
    cursor = cursors.encode(["a"], now=1000)
    assert cursors.decode(cursor, now=1000 + IDLE_SECONDS) == ["a"]
    with pytest.raises(CursorError, match="expired"):
        cursors.decode(cursor, now=1001 + IDLE_SECONDS)


UNSEALED_CURSOR = "A6KOHmn_Op51FBEWks0D6JKhYQU"
"""Issued by the release before sealing, for the list `["list",1]`, the position `["a", 5]` and the time 1000."""


def test_unsealed_cursor_is_accepted_for_a_day_after_an_upgrade() -> None:
    list_id = b'["list",1]'
    assert Cursors(upgraded_seal(), list_id).decode(UNSEALED_CURSOR, now=1000) == ["a", 5]
    with pytest.raises(CursorError, match="expired"):
        Cursors(upgraded_seal(), list_id).decode(UNSEALED_CURSOR, now=1001 + IDLE_SECONDS)
    for seal in (fixed_seal(), upgraded_seal(remaining=-timedelta(seconds=1))):
        with pytest.raises(CursorError, match="damaged"):
            Cursors(seal, list_id).decode(UNSEALED_CURSOR, now=1000)
    for index, character in enumerate(UNSEALED_CURSOR):
        damaged = UNSEALED_CURSOR[:index] + ("A" if character != "A" else "B") + UNSEALED_CURSOR[index + 1 :]
        with pytest.raises(CursorError, match="damaged"):
            Cursors(upgraded_seal(), list_id).decode(damaged, now=1000)
    with pytest.raises(CursorError, match="damaged"):
        Cursors(upgraded_seal(), b'["list",2]').decode(UNSEALED_CURSOR, now=1000)
