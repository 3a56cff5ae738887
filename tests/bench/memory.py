"""Memory use of a service's processes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.service import Service

MEBIBYTE = 1024


class Memory(NamedTuple):
    """Memory in MiB of a process and its children."""

    rss: float
    pss: float
    """Proportional set size: shared pages are divided among processes."""

    def __str__(self) -> str:
        return f"{self.rss:,.0f} / {self.pss:,.0f}"


def of(service: Service, name: str) -> Memory:
    parts = [_of(pid) for pid in family(service.pid(name))]
    return Memory(sum(part.rss for part in parts), sum(part.pss for part in parts))


def family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from family(int(child))


def _of(pid: int) -> Memory:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the process has ended
        return Memory(0, 0)
    sizes = dict(re.findall(r"^(Rss|Pss): +(\d+) kB", text, re.MULTILINE))
    return Memory(int(sizes.get("Rss", 0)) / MEBIBYTE, int(sizes.get("Pss", 0)) / MEBIBYTE)
