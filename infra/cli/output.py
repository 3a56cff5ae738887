"""Output of the commands: JSON for programs, lines and tables for people."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.operations.rebuild import Rebuild
from infra.wire import as_json, time

Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]

UNLIMITED_WIDTH = 100_000
"""Wider than any row: rich must neither wrap nor truncate a value."""


def print_json(answer: msgspec.Struct | Iterable[msgspec.Struct]) -> None:
    """Print a line of JSON, with names and times in the format of the API."""
    typer.echo(as_json(answer))


def print_table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table. Values are never wrapped or truncated: ids must be easy to copy."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row))
    Console(highlight=False, width=UNLIMITED_WIDTH).print(table)


def printable(text: str, replacement: str) -> str:
    """Replace unprintable characters: stored text must not send control characters to the terminal."""
    return "".join(character if character.isprintable() else replacement for character in text)


def rebuild_line(rebuild: Rebuild) -> str:
    """Describe the progress or the result of a rebuild in a single line."""
    parts = [f"{rebuild.index_name}: {rebuild.state}, {rebuild.phase}"]
    if rebuild.is_paused:
        parts.append("paused")
    if rebuild.wanted:
        parts.append(f"{rebuild.wanted} requested")
    parts.append(f"{rebuild.documents:,} of {rebuild.total:,} documents")
    if rebuild.documents_per_second:
        parts.append(f"{rebuild.documents_per_second:,}/s")
    if rebuild.remaining_seconds is not None:
        parts.append(f"{rebuild.remaining_seconds:,} s remaining")
    if rebuild.misses:
        parts.append(f"{rebuild.misses:,} misses")
    parts.append(f"live lag {rebuild.lag_ms:,} ms")
    if rebuild.error:
        parts.append(rebuild.error)
    return ", ".join(parts)


def _cell(value: object) -> str:
    match value:
        case None:
            return "–"
        case datetime():
            return time(value)
        case list():
            return ",".join(value)
        case _:
            return str(value)
