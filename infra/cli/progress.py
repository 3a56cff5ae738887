"""Progress of a command, on standard error: a bar on a terminal, elsewhere a line every few seconds."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_SECONDS = 5.0
IMPORT_LINE_SECONDS = 10.0


class ProgressDisplay:
    """Show the progress of a piece of work. The bar is removed at the end; lines stay."""

    def __init__(
        self, *columns: ProgressColumn, total: float | None = None, line_seconds: float = LINE_SECONDS
    ) -> None:
        """Show the bar, the percentage, the text, and further `columns`; print lines at least `line_seconds` apart."""
        self._console = Console(stderr=True)
        self._bar = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            *columns,
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, text="")
        self._line_seconds = line_seconds
        self._printed_at = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, text: str, *, completed: float, total: float | None, line: str | None = None) -> None:
        """Update the bar, or print `line` (by default the text) if the last line is old enough."""
        self._bar.update(self._task, completed=completed, total=total, text=text)
        now = time.monotonic()
        if self._bar.disable and now - self._printed_at >= self._line_seconds:
            self._printed_at = now
            self._console.print(line or text, highlight=False, soft_wrap=True)


class ImportProgress(ProgressDisplay):
    """Show the progress of an import, by the share of the file that is read, and measure the rate."""

    def __init__(self) -> None:
        super().__init__(TimeRemainingColumn(), total=1, line_seconds=IMPORT_LINE_SECONDS)
        self._started = time.monotonic()

    def show_rows(self, rows: int, rejected: int, share: float) -> None:
        """Show the rows read and the rows rejected so far, and the share of the file that is read."""
        text = f"{rows:,} rows, {rejected:,} rejected, {self.rate(rows):,.0f} rows/s"
        self.show(text, completed=share, total=1, line=f"{share:.0%}: {text}")

    def seconds(self) -> float:
        return time.monotonic() - self._started

    def rate(self, rows: int) -> float:
        """Rows per second since the start."""
        return rows / max(self.seconds(), 0.001)
