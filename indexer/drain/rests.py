"""Rests: an environment with a backlog pauses between its rounds, while other environments are active.

Indexing uses the processors that the searches of all environments need. Turns of equal size (`round_robin.py`) divide a
round, but without rests the rounds of a backlog would follow each other without a pause. A single active environment
never rests, and at most one environment rests at a time, so the backlogs of two environments use the whole capacity.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

ACTIVE_SECONDS = 5.0
"""How long an environment counts as active after its last round."""
LARGE_BYTES = 64 * 1024
"""Size of an environment's documents in a round from which the environment rests, if the round left changes."""
REST = 2
"""The rest after a round, as a multiple of the time of the round."""


class Rests:
    """The rests of a lane's environments, for the threads of a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._active: dict[int, float] = {}
        """The time of the last round by environment, the latest last."""
        self._environment, self._until = 0, 0.0

    @property
    def resting(self) -> int | None:
        """The environment that rests now."""
        return self._environment if self._clock() < self._until else None

    @property
    def is_shared(self) -> bool:
        """Whether several environments are active."""
        earliest = self._clock() - ACTIVE_SECONDS
        with self._lock:
            while self._active and next(iter(self._active.values())) < earliest:
                del self._active[next(iter(self._active))]
            return len(self._active) > 1

    def note_changes(self, environments: Iterable[int]) -> None:
        """Note the environments with changes in a round, at its beginning."""
        now = self._clock()
        with self._lock:
            for environment in environments:
                self._active.pop(environment, None)
                self._active[environment] = now

    def note_round(self, indexed: Counter[int], seconds: float, *, left: int) -> None:
        """Note the end of a round.

        Args:
            indexed: the bytes of documents by environment.
            seconds: the time of the round.
            left: the number of consumers without a document, because the round was long enough before. Small documents
                are hardly ever left, so their environments have no rests.
        """
        for environment, size in indexed.most_common(1):
            if left and size >= LARGE_BYTES and self.is_shared and self.resting is None:
                self._environment, self._until = environment, self._clock() + REST * seconds
