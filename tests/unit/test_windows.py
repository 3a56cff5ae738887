"""Time windows for the first search of pages by creation."""

import pytest

from api.consumers import query, windows
from api.consumers.query import Direction
from api.consumers.windows import MAX_LISTS, FirstPages


@pytest.mark.parametrize(
    ("times", "previous", "expected"),
    [([7], 0, 1_000), ([9_000, 8_500, 4_000], 0, 20_000), ([5, 6], 5_000, 2_500), ([-20_000, 0], 0, 80_000)],
)
def test_window_is_four_time_spans_wide_and_halves_at_most(times: list[int], previous: int, expected: int) -> None:
    assert windows.next_width(times, previous) == expected


@pytest.mark.parametrize(("ascending", "bounds"), [(True, (5, 1_505)), (False, (-1_495, 5))])
def test_window_starts_at_the_position_in_page_direction(*, ascending: bool, bounds: tuple[int, int]) -> None:
    [window] = windows.from_position([5, "cons_1"], 1_500, ascending=ascending)["range"].values()
    assert (window["gte"], window["lte"]) == bounds


@pytest.mark.parametrize(
    ("direction", "backward", "ascending"),
    [("asc", False, True), ("asc", True, False), ("desc", False, False), ("desc", True, True)],
)
def test_ascending_pages_go_from_oldest_to_newest(direction: Direction, *, backward: bool, ascending: bool) -> None:
    assert windows.is_ascending(query.list_order(1, "createdAt", direction), backward=backward) is ascending
    assert query.list_order(1, "email", direction).creation_direction is None


def test_first_pages_of_a_limited_number_of_lists_are_remembered() -> None:
    first_pages = FirstPages()
    assert first_pages.window(b"a list") is None
    first_pages.learn(b"a list", [1, 500])
    assert first_pages.window(b"a list") == {"range": {"createdAt": {"lte": 2_496, "format": "epoch_millis"}}}
    for number in range(MAX_LISTS):
        first_pages.learn(b"%d" % number, [1])
    assert first_pages.window(b"a list") is None
