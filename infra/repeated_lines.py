"""A limit on the warnings and errors in the log of a process: an outage repeats the same lines many times a second.

In a period, the first lines of a kind are written, and further lines are counted. At the end of the period a line of
each kind has the count as `repeated`. Lines below the level `warning` are not limited.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from structlog import DropEvent
from structlog.typing import EventDict, WrappedLogger

PERIOD_SECONDS = 60.0
FIRST_LINES = 3
"""Lines of a kind that are written in a period."""
MAX_LINES, MAX_COUNTS = 40, 20
"""Lines that are written in a period, and counts at its end, of all kinds."""
LEVELS = frozenset({"warning", "error", "critical"})
KIND = ("event", "level", "source", "reason", "status", "lane", "dependency", "task")
"""The fields that make a kind of lines. Further fields differ from line to line, such as ids and durations."""
COUNTED = "repeated"

Kind = tuple[Any, ...]
Write = Callable[[dict[str, Any]], None]


class _Lines(NamedTuple):
    """The lines of a kind in a period."""

    fields: dict[str, Any]
    written: int
    dropped: int


class Repetitions:
    """Counts the lines of this process. A structlog processor, to be placed after the level is known."""

    def __init__(self, write: Write, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without lines.

        Args:
            write: writes a line with these fields, at their `level`, past the limit.
            clock: a monotonic clock, in seconds.
        """
        self._write, self._clock = write, clock
        # Reentrant, because a warning may be logged by garbage collection inside this class.
        self._lock = threading.RLock()
        self._lines: dict[Kind, _Lines] = {}
        self._written = 0
        self._ends_at = 0.0
        self._timer: threading.Timer | None = None

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Pass a line on, or count it.

        Raises:
            DropEvent: the line is counted.
        """
        if event.get("level") not in LEVELS or COUNTED in event:
            return event
        with self._lock:
            if self._clock() >= self._ends_at:
                self.end_period()
            kind = _kind(event)
            lines = self._lines.get(kind) or _Lines({name: event[name] for name in KIND if name in event}, 0, 0)
            is_written = lines.written < FIRST_LINES and self._written < MAX_LINES
            self._written += is_written
            self._lines[kind] = lines._replace(
                written=lines.written + is_written, dropped=lines.dropped + (not is_written)
            )
            if not is_written:
                self._start_timer()
        if not is_written:
            raise DropEvent
        return event

    def end_period(self) -> None:
        """Write the counts, and begin a period. The kinds with fewest lines share a line if there are too many."""
        with self._lock:
            dropped = sorted((lines for lines in self._lines.values() if lines.dropped), key=lambda each: -each.dropped)
            if self._timer:
                self._timer.cancel()
            self._lines, self._written, self._timer = {}, 0, None
            self._ends_at = self._clock() + PERIOD_SECONDS
        listed = dropped[: MAX_COUNTS - 1]
        for lines in listed:
            self._write(lines.fields | {COUNTED: lines.dropped})
        if others := dropped[len(listed) :]:
            total = sum(lines.dropped for lines in others)
            self._write({"event": "lines_dropped", "level": "warning", "kinds": len(others), COUNTED: total})

    def _end_period_of(self, ends_at: float) -> None:
        """End a period by its timer, unless a line has ended the period before."""
        with self._lock:
            if self._ends_at == ends_at:
                self.end_period()

    def forget(self) -> None:
        """Begin anew in a forked process: the counts and the timer belong to the parent."""
        self._lock = threading.RLock()
        self._lines, self._written, self._timer, self._ends_at = {}, 0, None, 0.0

    def _start_timer(self) -> None:
        """Have the period end by itself, should no further line end it."""
        if self._timer is None:
            seconds = max(0.0, self._ends_at - self._clock())
            self._timer = threading.Timer(seconds, self._end_period_of, (self._ends_at,))
            self._timer.daemon = True
            self._timer.start()


def _kind(event: EventDict) -> Kind:
    """Return the kind of a line. Lines with an exception differ by its kind and its place."""
    exceptions = event.get("exception") or ()
    places = tuple((each["kind"], each["calls"][-1] if each["calls"] else "") for each in exceptions)
    return (*(str(event.get(name)) for name in KIND), places)
