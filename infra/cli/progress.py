"""Shows how far an import is: a bar on a terminal, elsewhere a line now and then."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10


class Meter:
    """To be told after each chunk."""

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._started = self._said = clock()
        self._console = Console(stderr=True)
        self._bar = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=size, text="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, rows: int, rejected: int, position: int) -> None:
        """Rows so far, how many of them rejected, bytes of the file so far."""
        text = f"{rows:,} rows, {rejected:,} rejected, {self.rate(rows):,.0f} rows/s"
        self._bar.update(self._task, completed=position, text=text)
        if self._bar.disable and self._clock() - self._said >= LINE_SECONDS:
            self._said = self._clock()
            self._console.print(f"{position / self._size:.0%}: {text}", highlight=False, soft_wrap=True)

    def seconds(self) -> float:
        return self._clock() - self._started

    def rate(self, rows: int) -> float:
        """Rows a second since the start."""
        return rows / max(self.seconds(), 0.001)
