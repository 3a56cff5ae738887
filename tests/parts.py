"""The parts of the tests, which are the folders of `tests/`: their order in a run, and how long each takes."""

from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

LONGEST_FIRST = ("guarantees", "relevance", "local", "indexer", "api")
"""Parts with files that run for a minute and more. Each file runs in one process, so long ones must not begin last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(_part(item.nodeid), len(order)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the time of each part. With several processes at work, the sum is more than the time of the run."""
    seconds: Counter[str] = Counter()
    tests: defaultdict[str, set[str]] = defaultdict(set)
    for report in _reports(terminalreporter):
        seconds[_part(report.nodeid)] += report.duration  # type: ignore[assignment]
        tests[_part(report.nodeid)].add(report.nodeid)
    if seconds:
        terminalreporter.section("seconds of each part")
    for part, total in seconds.most_common():
        terminalreporter.line(f"{total:8.1f}  {part} ({len(tests[part])} tests)")


def _reports(terminalreporter: pytest.TerminalReporter) -> Iterator[pytest.TestReport]:
    for reports in terminalreporter.stats.values():
        yield from (report for report in reports if isinstance(report, pytest.TestReport))


def _part(nodeid: str) -> str:
    return nodeid.split("/")[1]
