"""What a run found, as Markdown: in a file from the first table on, so that nothing is lost with what fails later."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

STARTED = time.monotonic()


def progress(line: str) -> None:
    """Tell whoever waits."""
    print(f"[{time.monotonic() - STARTED:5.0f} s] {line}", file=sys.stderr, flush=True)  # noqa: T201 (while one waits)


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
