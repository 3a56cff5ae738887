"""An environment with a backlog rests between its rounds while others are active, and never alone."""

from collections import Counter

import pytest

from indexer.drain.rests import ACTIVE_SECONDS, LARGE_BYTES, REST, Rests

SMALL = LARGE_BYTES - 1


class Lane:
    """The rests of a lane, with a clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rests = Rests(lambda: self.now)

    def round(self, seconds: float = 1.0, left: int = 1, **indexed: int) -> int | None:
        """Note a round with the bytes by environment, such as `e1=100`; return the resting environment."""
        sizes = Counter({int(name[1:]): size for name, size in indexed.items()})
        self.rests.note_changes(sizes)
        self.now += seconds
        self.rests.note_round(sizes, seconds, left=left)
        return self.rests.resting


def test_environment_rests_in_proportion_to_its_round_beside_others() -> None:
    lane = Lane()
    assert lane.round(e1=SMALL) is None
    assert lane.round(e2=LARGE_BYTES, seconds=0.5) == 2
    lane.now += REST * 0.5 - 0.01
    assert lane.rests.resting == 2
    lane.now += 0.02
    assert lane.rests.resting is None


def test_environment_without_a_backlog_does_not_rest() -> None:
    lane = Lane()
    lane.round(e1=SMALL)
    assert lane.round(e2=LARGE_BYTES, left=0) is None


def test_environment_without_active_others_never_rests() -> None:
    lane = Lane()
    lane.round(e1=SMALL)
    lane.now += ACTIVE_SECONDS
    assert lane.round(e2=100 * LARGE_BYTES, seconds=0.1) is None
    assert not lane.rests.is_shared
    assert lane.round(e1=SMALL) is None
    assert lane.rests.is_shared


@pytest.mark.parametrize("heaviest", [1, 2])
def test_a_single_environment_rests_at_a_time(heaviest: int) -> None:
    lane = Lane()
    sizes = {1: LARGE_BYTES, 2: LARGE_BYTES} | {heaviest: 2 * LARGE_BYTES}
    assert lane.round(e1=sizes[1], e2=sizes[2]) == heaviest
    assert lane.round(e3=LARGE_BYTES, seconds=0.1) == heaviest
