"""The output of `make up`, on a terminal or in a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from infra.local.artifacts import Advance
from infra.local.folder import MEGABYTE
from infra.settings import Settings

TENTHS = 10


class Display:
    """Lines for finished steps, and a spinner or bar for the running step."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str) -> None:
        """Print a line without markup or wrapping, so that addresses and commands can be copied."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        if not self._console.is_terminal:
            self.line(text)
        with self._console.status(text):
            yield

    @contextmanager
    def download(self, name: str, size: int) -> Iterator[Advance]:
        """Show the progress of a download: a bar on a terminal, else a line for each tenth of a large file."""
        if not self._console.is_terminal:
            yield self._lines(name, size)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(name, total=size)
            yield lambda count: progress.advance(task, count)

    def _lines(self, name: str, size: int) -> Advance:
        received = shown = 0

        def advance(count: int) -> None:
            nonlocal received, shown
            received += count
            if (tenth := received * TENTHS // size) > shown and size > MEGABYTE:
                shown = tenth
                self.line(f"{name}: {received // MEGABYTE} of {size // MEGABYTE} MB")

        return advance


def welcome(settings: Settings, key: str, line: Callable[[str], None]) -> None:
    """Print address, key and commands to try."""
    address = f"http://{settings.host}:{settings.port}"
    consumers = f"{address}/api/v1/consumers"
    authorized = f"-H 'Authorization: Bearer {key}'"
    waiting = "-H 'Prefer: wait=10'"  # for the index, so that the next command finds the customer
    body = """-H 'Content-Type: application/json' -d '{"fullName": "Zoë Ångström"}'"""
    for text in (
        "",
        f"The API runs on {address} (documentation: {address}/docs). The key for the sample data:",
        f"  {key}",
        f"For Prometheus: http://{settings.metrics_host}:{settings.operations_port}/metrics",
        "List the customers with the highest totals, create a customer, find the customer without accents:",
        f"  curl '{consumers}?sortBy=totalOrderValue&first=3' {authorized}",
        f"  curl {consumers} {authorized} {waiting} {body}",
        f"  curl '{consumers}/search?q=zoe%20angstrom' {authorized}",
        "Export all data for DuckDB, pandas and BI tools (docs/analysts.md):",
        "  .venv/bin/consumers export --org demo --out export",
        "Ctrl-C stops everything.",
    ):
        line(text)
