"""What `make up` shows, on a terminal or in a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from infra.local.artifacts import Advance
from infra.local.folder import MEGABYTE
from infra.settings import Settings

TENTHS = 10


class Display:
    """Lines for what has happened, and something that moves for what is going on."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str) -> None:
        """Print a line as it is: addresses and commands are to be copied."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        if not self._console.is_terminal:
            self.line(text)
        with self._console.status(text):
            yield

    @contextmanager
    def download(self, name: str, size: int) -> Iterator[Advance]:
        """Show how far a download is: by a bar, or by a line for every tenth of a large one."""
        if not self._console.is_terminal:
            yield self._lines(name, size)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(name, total=size)
            yield lambda count: progress.advance(task, count)

    def _lines(self, name: str, size: int) -> Advance:
        got = told = 0

        def advance(count: int) -> None:
            nonlocal got, told
            got += count
            if (tenth := got * TENTHS // size) > told and size > MEGABYTE:
                told = tenth
                self.line(f"{name}: {got // MEGABYTE} of {size // MEGABYTE} MB")

        return advance


def welcome(settings: Settings, key: str, line: Callable[[str], None]) -> None:
    """Tell where it runs and what to try."""
    address = f"http://{settings.host}:{settings.port}"
    consumers = f"{address}/api/v1/consumers"
    authorized = f"-H 'Authorization: Bearer {key}'"
    body = """-H 'Content-Type: application/json' -d '{"fullName": "Zoë Ångström"}'"""
    for text in (
        "",
        f"It runs on {address} (documentation: {address}/docs). The key of its sample data:",
        f"  {key}",
        "Try the best customers, a new one, and a search for that one without its accents:",
        f"  curl '{consumers}?sortBy=totalOrderValue&first=3' {authorized}",
        f"  curl {consumers} {authorized} {body}",
        f"  curl '{consumers}/search?q=zoe%20angstrom' {authorized}",
        "Ctrl-C stops it.",
    ):
        line(text)
