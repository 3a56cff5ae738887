"""The report of a run as Markdown, written to a file after each table, so that a later failure loses nothing."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

STARTED = time.monotonic()


def progress(line: str) -> None:
    """Print progress to standard error."""
    print(f"[{time.monotonic() - STARTED:5.0f} s] {line}", file=sys.stderr, flush=True)  # noqa: T201 (progress)


class Report:
    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")

    def section(self, title: str) -> None:
        progress(title)
        self._add(f"## {title}")

    def say(self, text: str) -> None:
        self._add(text)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines = [head, ["---"] * len(head), *rows]
        self._add("\n".join(f"| {' | '.join(line)} |" for line in lines))

    def text(self) -> str:
        return self.file.read_text()

    def _add(self, part: str) -> None:
        with self.file.open("a") as file:
            file.write(f"{part}\n\n")
