"""The parts of the tests, which are the folders of `tests/`: their order in a run, and how long each takes."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

LONGEST_FIRST = ("guarantees", "relevance", "local", "indexer", "api")
"""Parts with files that run for a minute and more. Each file runs in one process, so long ones must not begin last."""

WITH_OWN_SERVERS = ("export_crashes", "mixed_writes", "older_files", "outages", "real_histories", "rebuilds")
"""Files that share the fixture `own_servers`: they run in one process, because a start of these servers takes long."""


class _Files(LoadFileScheduling):  # type: ignore[misc]
    """Give each file to one process, and the files with own servers together."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "own servers" if file in {f"tests/guarantees/test_{name}.py" for name in WITH_OWN_SERVERS} else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    return _Files(config, log)


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
