"""The doubling pause."""

from infra.backoff import Backoff


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pause_doubles_with_each_failure_up_to_a_maximum() -> None:
    backoff = Backoff(1, 5, Clock())
    assert [backoff.pause() for _ in range(5)] == [1, 2, 4, 5, 5]


def test_attempt_is_due_without_failure_and_after_the_pause() -> None:
    clock = Clock()
    backoff = Backoff(1, 5, clock)
    assert not backoff.is_pausing
    backoff.pause()
    pausing = []
    for seconds in (100.0, 100.5, 101.0):
        clock.now = seconds
        pausing.append(backoff.is_pausing)
    assert pausing == [True, True, False]


def test_success_resets_the_pause() -> None:
    backoff = Backoff(1, 5, Clock())
    backoff.pause()
    backoff.pause()
    backoff.reset()
    assert not backoff.is_pausing
    assert backoff.pause() == 1


def test_pause_of_zero_length_is_over_at_once() -> None:
    backoff = Backoff(0, 0, Clock())
    assert backoff.pause() == 0
    assert not backoff.is_pausing
