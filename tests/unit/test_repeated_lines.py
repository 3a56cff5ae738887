"""Repeated warnings are written a few times in a period, and counted."""

import contextlib
from typing import Any

import pytest
from structlog import DropEvent

from infra.repeated_lines import FIRST_LINES, MAX_COUNTS, MAX_LINES, PERIOD_SECONDS, Repetitions


class Log:
    """The lines of a process, with a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.written: list[dict[str, Any]] = []
        self.repetitions = Repetitions(self.written.append, clock=lambda: self.now)

    def add(self, event: str, **fields: Any) -> None:
        line = {"event": event, "level": "warning"} | fields
        with contextlib.suppress(DropEvent):
            self.written.append(dict(self.repetitions(None, "", line)))

    def end_period(self) -> list[dict[str, Any]]:
        """Return the lines written at the end of the period."""
        before = len(self.written)
        self.now += PERIOD_SECONDS
        self.repetitions.end_period()
        return self.written[before:]


@pytest.fixture
def log() -> Log:
    return Log()


def test_repeated_line_is_counted(log: Log) -> None:
    for number in range(1000):
        log.add("drain_postponed", reason="ConnectionError", lane="live", rows=number)
    assert [line["rows"] for line in log.written] == list(range(FIRST_LINES))
    kind = {"event": "drain_postponed", "level": "warning", "reason": "ConnectionError", "lane": "live"}
    assert log.end_period() == [kind | {"repeated": 1000 - FIRST_LINES}]
    log.add("drain_postponed", reason="ConnectionError", lane="live", rows=1)
    assert log.written[-1]["rows"] == 1
    assert log.end_period() == []


def test_failed_requests_are_counted_by_status(log: Log) -> None:
    """Whatever the route and the merchant: those of an outage would take the place of other warnings."""
    for number in range(1000):
        log.add("request", status=503 if number % 2 else 500, route=f"/r{number}", request_id=f"req_{number}")
    assert len(log.written) == 2 * FIRST_LINES
    assert [(line["status"], line["repeated"]) for line in log.end_period()] == [(500, 497), (503, 497)]


def test_next_line_after_a_period_writes_the_counts(log: Log) -> None:
    for _ in range(FIRST_LINES + 2):
        log.add("a")
    log.now += PERIOD_SECONDS
    log.add("b")
    assert [(line["event"], line.get("repeated")) for line in log.written[FIRST_LINES:]] == [("a", 2), ("b", None)]


def test_timer_of_an_earlier_period_ends_no_later_period(log: Log) -> None:
    for _ in range(FIRST_LINES + 1):
        log.add("a")
    former = log.repetitions._timer  # noqa: SLF001 (its call is the promise)
    assert former
    log.now += PERIOD_SECONDS
    for _ in range(FIRST_LINES + 5):
        log.add("a")
    before = list(log.written)
    former.function(*former.args)
    assert log.written == before
    assert former.finished.is_set(), "it was cancelled"
    log.add("a")
    assert log.written == before, "the period goes on"


def test_lines_with_different_causes_are_counted_apart(log: Log) -> None:
    fault = {"kind": "KeyError", "calls": ["a.py:1 f"]}
    for fields in ({"reason": "x"}, {"reason": "y"}, {"exception": [fault]}, {"exception": [fault | {"calls": []}]}):
        for _ in range(FIRST_LINES):
            log.add("a", **fields)
    assert len(log.written) == 4 * FIRST_LINES


def test_lines_of_a_period_are_limited_for_any_number_of_kinds(log: Log) -> None:
    for number in range(500):
        for _ in range(2):
            log.add("a", reason=str(number))
    assert len(log.written) == MAX_LINES
    counts = log.end_period()
    assert len(counts) == MAX_COUNTS
    assert sum(line["repeated"] for line in counts) == 1000 - MAX_LINES
    assert counts[-1]["event"] == "lines_dropped"


def test_lines_of_lower_levels_are_not_limited(log: Log) -> None:
    for number in range(100):
        log.add("request", level="info", status=number)
    assert len(log.written) == 100
