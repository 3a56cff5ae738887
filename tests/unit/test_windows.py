"""Where pages by creation are looked for first."""

import pytest

from api.consumers import query, windows
from api.consumers.query import Direction
from api.consumers.windows import LISTS, Oldest


@pytest.mark.parametrize(
    ("moments", "before", "expected"),
    [([7], 0, 1_000), ([9_000, 8_500, 4_000], 0, 20_000), ([5, 6], 5_000, 2_500), ([-20_000, 0], 0, 80_000)],
)
def test_next_page_may_reach_four_times_as_far_and_a_burst_is_forgotten_slowly(
    moments: list[int], before: int, expected: int
) -> None:
    assert windows.reach(moments, before) == expected


@pytest.mark.parametrize(("rising", "bounds"), [(True, (5, 1_505)), (False, (-1_495, 5))])
def test_window_begins_at_the_place_and_reaches_the_way_of_the_walk(*, rising: bool, bounds: tuple[int, int]) -> None:
    [window] = windows.beside([5, "cons_1"], 1_500, rising=rising)["range"].values()
    assert (window["gte"], window["lte"]) == bounds


@pytest.mark.parametrize(
    ("direction", "backward", "rising"),
    [("asc", False, True), ("asc", True, False), ("desc", False, False), ("desc", True, True)],
)
def test_walk_rises_from_the_oldest_to_the_newest(direction: Direction, *, backward: bool, rising: bool) -> None:
    assert windows.is_rising(query.list_order(1, "createdAt", direction), backward=backward) is rising
    assert query.list_order(1, "email", direction).creation is None


def test_oldest_rows_are_remembered_of_so_many_lists_only() -> None:
    oldest = Oldest()
    assert oldest.rows(b"a list") is None
    oldest.learn(b"a list", [1, 500])
    assert oldest.rows(b"a list") == {"range": {"createdAt": {"lte": 2_496, "format": "epoch_millis"}}}
    for number in range(LISTS):
        oldest.learn(b"%d" % number, [1])
    assert oldest.rows(b"a list") is None
