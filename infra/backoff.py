"""The pause between attempts of a failing operation."""

import time
from collections.abc import Callable


class Backoff:
    """A pause between attempts, doubled with each consecutive failure up to a limit.

    Args:
        first_seconds: the pause after the first failure.
        longest_seconds: the limit.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, first_seconds: float, longest_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._first, self._longest, self._clock = first_seconds, longest_seconds, clock
        self._next_pause = first_seconds
        self._due = clock()

    @property
    def is_pausing(self) -> bool:
        """Whether the next attempt is not due yet."""
        return self._clock() < self._due

    def pause(self) -> float:
        """Begin a pause after a failure; return its length in seconds."""
        seconds = self._next_pause
        self._due = self._clock() + seconds
        self._next_pause = min(2 * seconds, self._longest)
        return seconds

    def reset(self) -> None:
        """End the pause after a success, and start with the first pause at the next failure."""
        self._next_pause = self._first
        self._due = self._clock()
