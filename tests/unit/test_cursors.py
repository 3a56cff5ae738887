"""Encoding and decoding of cursors."""

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cursors import ADDED_PARAMETERS, IDLE_SECONDS, CursorError, Cursors, parameters_of
from infra.seals import Seal
from tests.seals import fixed_seal, upgraded_seal

kinds = st.sampled_from(["list", "search"])
parameters = st.dictionaries(st.sampled_from(["search", "filter"]), st.text(max_size=20) | st.none())
lists = st.builds(Cursors, st.just(fixed_seal()), kinds, parameters, st.just(1))
values = st.lists(
    st.one_of(st.none(), st.text(max_size=50), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)), max_size=4
)


@given(lists, values, st.integers(0, 2**33), st.integers(0, IDLE_SECONDS))
def test_cursor_decodes_to_its_values(
    cursors: Cursors, position: list[str | int | float | None], now: int, idle: int
) -> None:
    assert cursors.decode(cursors.encode(position, now), now + idle) == (position, [])


def test_cursor_carries_the_spacing_of_its_row_beside_the_values() -> None:
    """The release before reads the first three elements."""
    cursors = Cursors(fixed_seal(), "list", {}, 1)
    cursor = cursors.encode(["a", 5], 1000, ["a", 3, None])
    assert cursors.decode(cursor, 1000) == (["a", 5], ["a", 3, None])
    payload = msgspec.msgpack.decode(fixed_seal().open("cursor", cursor, b"list"))
    assert payload == [1000, ["a", 5], {}, ["a", 3, None]]
    upgraded = cursors._replace(seal=upgraded_seal())
    assert upgraded.decode(upgraded.encode(["a", 5], 1000, ["a", 3, None]), 1000) == (["a", 5], [])


@given(lists, values)
def test_cursor_holds_the_parameters_of_its_list(cursors: Cursors, position: list[str | int | float | None]) -> None:
    expected = {name: value for name, value in cursors.parameters.items() if value is not None}
    assert parameters_of(fixed_seal(), cursors.kind, cursors.encode(position)) == expected
    assert parameters_of(fixed_seal(), "orders", cursors.encode(position)) is None


@given(lists, values)
def test_cursor_needs_no_escaping_in_a_url(cursors: Cursors, position: list[str | int | float | None]) -> None:
    assert set(cursors.encode(position)) <= set(string.ascii_letters + string.digits + "-_")


@given(lists, lists, values)
def test_cursor_of_another_list_is_refused(
    one: Cursors, other: Cursors, position: list[str | int | float | None]
) -> None:
    if one.kind != other.kind or any(
        one.parameters.get(name) != other.parameters.get(name) for name in ("search", "filter")
    ):
        with pytest.raises(CursorError):
            other.decode(one.encode(position))


@given(lists, values)
def test_cursor_of_another_environment_is_refused(cursors: Cursors, position: list[str | int | float | None]) -> None:
    with pytest.raises(CursorError):
        cursors._replace(seal=fixed_seal(2)).decode(cursors.encode(position))


@given(lists, values, st.data())
def test_cursor_damaged_anywhere_is_refused(
    cursors: Cursors, position: list[str | int | float | None], data: st.DataObject
) -> None:
    cursor = cursors.encode(position)
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from(sorted(set(string.printable) - {cursor[at]})))
    with pytest.raises(CursorError):
        cursors.decode(cursor[:at] + other + cursor[at + 1 :])


@given(st.text(max_size=200))
@pytest.mark.parametrize("seal", [fixed_seal(), upgraded_seal()])
def test_any_other_text_is_refused(seal: Seal, text: str) -> None:
    with pytest.raises(CursorError):
        Cursors(seal, "list", {}, 1).decode(text)


def test_cursor_expires_after_a_day() -> None:
    cursors = Cursors(fixed_seal(), "list", {}, 1)
    cursor = cursors.encode(["a"], now=1000)
    assert cursors.decode(cursor, now=1000 + IDLE_SECONDS).values == ["a"]
    with pytest.raises(CursorError, match="expired"):
        cursors.decode(cursor, now=1001 + IDLE_SECONDS)


def released_cursor(cursors: Cursors, now: float) -> str:
    """Make a cursor of the release before: sealed for the id of the list, without parameters."""
    return cursors._replace(seal=upgraded_seal()).encode(["a", 5], now)


def test_cursor_without_parameters_is_made_for_a_day_after_an_upgrade() -> None:
    """Processes of the release before open cursors with the id of the list."""
    cursors = Cursors(upgraded_seal(), "list", {"search": "ab", "filter": None}, 1)
    list_id = b'["list",1,{"search":"ab","filter":null}]'
    payload = upgraded_seal().open("cursor", released_cursor(cursors, 1000), list_id)
    assert payload == msgspec.msgpack.encode([1000, ["a", 5], {}])
    assert parameters_of(upgraded_seal(), "list", released_cursor(cursors, 1000)) is None


def test_cursor_of_the_release_before_is_accepted() -> None:
    cursors = Cursors(fixed_seal(), "list", {"search": "ab"}, 1)
    cursor = released_cursor(cursors, 1000)
    assert cursors.decode(cursor, now=1000).values == ["a", 5]
    with pytest.raises(CursorError, match="expired"):
        cursors.decode(cursor, now=1001 + IDLE_SECONDS)
    with pytest.raises(CursorError, match="damaged"):
        cursors._replace(parameters={"search": "abc"}).decode(cursor, now=1000)


@pytest.mark.parametrize("seal", [fixed_seal(), upgraded_seal()])
def test_cursor_does_not_name_defaults_of_added_parameters(seal: Seal) -> None:
    """The release before has no such parameters, and refuses cursors with other parameters than it knows."""
    before = Cursors(seal, "orders", {"status": "CREATED"}, 1)
    now = before._replace(parameters=ADDED_PARAMETERS["orders"] | {"status": "CREATED"})
    assert now.encode(["a"], 1000) == before.encode(["a"], 1000)
    sorted_by_update = now._replace(parameters=dict(now.parameters) | {"sort_by": "updatedAt"})
    with pytest.raises(CursorError):
        before.decode(sorted_by_update.encode(["a"], 1000), now=1000)
    for cursors in (now, sorted_by_update):
        if named := parameters_of(seal, "orders", cursors.encode(["a"], 1000)):
            assert named == {"status": "CREATED", "sort_by": cursors.parameters["sort_by"]}
