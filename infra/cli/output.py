"""How commands answer: JSON for programs, lines and tables for people."""

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

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


ENDLESS = 100_000


def print_json(answer: msgspec.Struct | Iterable[msgspec.Struct]) -> None:
    """Print it as one line of JSON, with names and times as the API writes them."""
    typer.echo(as_json(answer))


def print_table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table; its values are never cut off or wrapped, for ids are there to be copied."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row))
    Console(highlight=False, width=ENDLESS).print(table)


def rebuild_line(found: Rebuild) -> str:
    """How far a rebuild is, in one line."""
    parts = [f"{found.index_name}: {found.state}, {found.phase}"]
    if found.is_paused:
        parts.append("paused")
    if found.wanted:
        parts.append(f"{found.wanted} asked for")
    parts.append(f"{found.documents:,} of {found.total:,} documents")
    if found.documents_per_second:
        parts.append(f"{found.documents_per_second:,}/s")
    if found.remaining_seconds is not None:
        parts.append(f"{found.remaining_seconds:,} s to go")
    if found.misses:
        parts.append(f"{found.misses:,} misses")
    parts.append(f"live lag {found.lag_ms:,} ms")
    if found.error:
        parts.append(found.error)
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
